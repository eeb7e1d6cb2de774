"""Experiments: every protocol of a recipe, with every model, on every fold.

The tree, below the experiment's folder:

    recipe.toml, experiment.json            the resolved recipe; the runs and how they ended
    PROTOCOL/MODEL/FOLD/                    one run, see `trainer.one_run`
    report.json, report.html, figures/      made of the runs' predictions and logs alone
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from trainer.checkpoint import LAST, differences
from trainer.distributed import World
from trainer.errors import TrainerError
from trainer.one_run import FILES, PREDICTIONS, complete, make_folder, predict, write_text
from trainer.prepare import Places, Stock, find_folds, read_utterances
from trainer.protocols import Fold, ProtocolSettings, describe
from trainer.recipe import Recipe, dump_recipes, parse_recipes
from trainer.schema import read_toml

RECIPE, RECORD = "recipe.toml", "experiment.json"
_MADE_OF_RUNS = ("report.json", "report.html")

State = Literal["pending", "running", "done", "failed"]


class Entry(BaseModel):
    """One run: where it is and how it ended."""

    model_config = ConfigDict(extra="forbid")

    protocol: str
    model: str
    fold: str
    folder: str
    state: State = "pending"
    reason: str | None = None


class Record(BaseModel):
    """`experiment.json`.

    `recipe` is the resolved recipe; of several models it shows the first.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    name: str
    recipe: dict[str, Any]
    runs: list[Entry]

    def entry(self, protocol: str, model: str, fold: str) -> Entry | None:
        """The entry of a run."""
        for entry in self.runs:
            if (entry.protocol, entry.model, entry.fold) == (protocol, model, fold):
                return entry
        return None

    def count(self, state: State) -> int:
        """Runs in a state."""
        return sum(entry.state == state for entry in self.runs)


def load_record(folder: Path) -> Record:
    """Read `experiment.json`.

    Raises
    ------
    TrainerError
        there is none, or it is not one.
    """
    path = folder / RECORD
    try:
        return Record.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise TrainerError(f"{path} does not exist: is this the folder of an experiment?") from None
    except (OSError, ValidationError) as error:
        raise TrainerError(f"{path} is not an experiment of this trainer: {error}") from None


def load_resolved(folder: Path) -> dict[str, Recipe]:
    """The recipe of each model of an experiment's folder.

    Raises
    ------
    TrainerError
        there is no `recipe.toml`, or it is of another version.
    """
    path = folder / RECIPE
    return parse_recipes(read_toml(path), path)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of an experiment's runs are wanted; None: all."""

    protocol: str | None = None
    model: str | None = None
    fold: str | None = None


@dataclass(frozen=True, slots=True)
class _Planned:
    entry: Entry
    recipe: Recipe
    protocol: ProtocolSettings
    fold: Fold
    stock: Stock


class Experiment:
    """All runs of a recipe in a folder.

    Parameters
    ----------
    recipes
        by model, as `trainer.recipe.load_recipes` gives them.
    tell
        takes lines for the user.

    Raises
    ------
    TrainerError
        corpora, label map and protocols do not go together.
    """

    def __init__(
        self,
        recipes: Mapping[str, Recipe],
        folder: Path,
        places: Places,
        processes: int = 1,
        world: World | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.recipes, self.folder, self.world = dict(recipes), folder, world or World()
        self._tell = tell if self.world.leads else _nothing
        recipe = next(iter(self.recipes.values()))
        utterances = read_utterances(recipe, places, self._tell)
        self._plan: list[_Planned] = []
        found = {p.name: find_folds(recipe, p, utterances) for p in recipe.protocols}
        everything = [fold for members in found.values() for fold in members]
        stock = Stock(recipe, everything, places, processes, progress=self.world.leads)
        for protocol in recipe.protocols:
            members = found[protocol.name]
            for model, own in self.recipes.items():
                for fold in members:
                    at = f"{protocol.name}/{model}/{fold.name}"
                    entry = Entry(protocol=protocol.name, model=model, fold=fold.name, folder=at)
                    self._plan.append(_Planned(entry, own, protocol, fold, stock))
        self.record = Record(
            name=recipe.name,
            recipe=recipe.model_dump(mode="json", exclude_none=True),
            runs=[planned.entry for planned in self._plan],
        )

    def begin(self, resume: bool = False, fresh: bool = False) -> None:
        """Take hold of the folder: a new one, one to go on with, or one to make anew.

        Raises
        ------
        TrainerError
            the folder holds an experiment and neither is asked for, there is none to resume, or
            it is of another recipe; or it cannot be written.
        """
        self.world.only_leader(lambda: self._begin(resume, fresh))

    def _begin(self, resume: bool, fresh: bool) -> None:
        there = (self.folder / RECORD).is_file()
        if (self.folder / LAST).is_file():
            raise TrainerError(
                f"{self.folder} holds a run by an earlier version of the trainer: use --out."
            )
        if there and fresh:
            _clear(self.folder)
        elif there and not resume:
            raise TrainerError(
                f"{self.folder} holds an experiment already: use --resume, --fresh or --out."
            )
        elif resume and not there:
            raise TrainerError(
                f"{self.folder} holds no experiment to resume: {self.folder / RECORD} "
                "does not exist."
            )
        elif there:
            self._take_up()
        make_folder(self.folder)
        write_text(self.folder / RECIPE, dump_recipes(self.recipes))
        self._save()

    def _take_up(self) -> None:
        _check_same(load_resolved(self.folder), self.recipes, self.folder / RECIPE)
        known = load_record(self.folder)
        for entry in self.record.runs:
            old = known.entry(entry.protocol, entry.model, entry.fold)
            if old is not None:
                entry.state, entry.reason = old.state, old.reason
        for old in known.runs:
            if self.record.entry(old.protocol, old.model, old.fold) is None:
                self.record.runs.append(old)

    def _save(self) -> None:
        text = json.dumps(self.record.model_dump(mode="json"), indent=1, ensure_ascii=False)
        write_text(self.folder / RECORD, text + "\n")

    def choose(self, choice: Choice) -> list[_Planned]:
        """The runs that are wanted.

        Raises
        ------
        TrainerError
            there is no such protocol, model or fold.
        """
        wanted = self._plan
        for key in ("protocol", "model", "fold"):
            name = getattr(choice, key)
            if name is None:
                continue
            there = list(dict.fromkeys(getattr(p.entry, key) for p in wanted))
            if name not in there:
                close = get_close_matches(name, there, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(there)}."
                raise TrainerError(f"--{key}: there is no {name!r}; {hint}")
            wanted = [p for p in wanted if getattr(p.entry, key) == name]
        return wanted

    def run(self, choice: Choice | None = None) -> int:
        """Do what is not done yet; returns the number of runs that failed.

        A run that fails is recorded with its reason, and the others go on.

        Raises
        ------
        TrainerError
            the record cannot be written, or `choice` names something that is not there.
        """
        wanted = self.choose(choice or Choice())
        failed = 0
        for i, planned in enumerate(wanted):
            entry = planned.entry
            folder = self.folder / entry.folder
            if self._is_done(planned):
                continue
            self._tell(f"[{i + 1}/{len(wanted)}] {entry.folder} ({describe(planned.protocol)})")
            self._note(entry, "running")
            reason = self._attempt(planned, folder)
            self._note(entry, "failed" if reason else "done", reason)
            if reason:
                failed += 1
                self._tell(f"{entry.folder} failed: {reason}")
        return failed

    def hear_again(self, choice: Choice) -> None:
        """Renew the predictions of every run that is done.

        Raises
        ------
        TrainerError
            a trained model is gone, or `choice` names something that is not there.
        """
        known = load_record(self.folder)
        for planned in self.choose(choice):
            entry = planned.entry
            old = known.entry(entry.protocol, entry.model, entry.fold)
            if old is not None and old.state == "done":
                self._tell(entry.folder)
                predict(planned.recipe, planned.stock, planned.fold, self.folder / entry.folder)

    def _is_done(self, planned: _Planned) -> bool:
        predictions = self.folder / planned.entry.folder / PREDICTIONS
        return self.world.only_leader(
            lambda: planned.entry.state == "done" and predictions.is_file()
        )

    def _attempt(self, planned: _Planned, folder: Path) -> str | None:
        """Run; returns why it failed."""
        try:
            complete(
                planned.recipe, planned.protocol, planned.fold, planned.stock, folder, self.world
            )
        except TrainerError as error:
            return str(error)
        except Exception as error:
            # Whatever it is must not cost the other folds; alone among several processes it would
            # leave the rest waiting.
            if self.world.size > 1:
                raise
            path = folder / "error.txt"
            write_text(path, traceback.format_exc())
            return f"{type(error).__name__}: {error} (see {path})"
        return None

    def _note(self, entry: Entry, state: State, reason: str | None = None) -> None:
        entry.state, entry.reason = state, reason
        self.world.only_leader(self._save)


def _nothing(_: str) -> None:
    pass


def _check_same(known: Mapping[str, Recipe], wanted: Mapping[str, Recipe], path: Path) -> None:
    """Refuse to mix runs of two recipes; protocols and models may come and go."""
    keys: list[str] = []
    for model in known.keys() & wanted.keys():
        keys += differences(wanted[model], known[model])
        before = {p.name: p for p in known[model].protocols}
        keys += [
            f"protocols.{p.name}" for p in wanted[model].protocols if before.get(p.name, p) != p
        ]
    if keys:
        raise TrainerError(
            f"{path} is another recipe (it differs in {', '.join(dict.fromkeys(keys))}). "
            "Resume with the same recipe, use --fresh, or choose another folder with --out."
        )


def _clear(folder: Path) -> None:
    """Delete what experiments write, and nothing else that may be there."""
    for entry in load_record(folder).runs:
        run = folder / entry.folder
        if not run.is_dir():
            continue
        for path in [*(run / name for name in FILES), *run.glob("events.out.tfevents.*")]:
            path.unlink(missing_ok=True)
        for path in (run, run.parent, run.parent.parent):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    for name in (RECORD, RECIPE, *_MADE_OF_RUNS):
        (folder / name).unlink(missing_ok=True)
