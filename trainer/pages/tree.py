"""An experiment's folder as far as it can be read; what cannot is told, not raised."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.plots.curves import Log, read_log
from trainer.predictions import Predictions, load_predictions
from trainer.recipe import Recipe, load_recipes
from trainer.report import Entry, ExperimentReport, load_experiment_report

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class FoldRun:
    """One run: a protocol's fold, trained with one model."""

    protocol: str
    model: str
    fold: str
    folder: Path
    state: str = "unknown"
    reason: str = ""

    def log(self) -> Log | None:
        """Its curves, None if it has none."""
        return read_log(self.folder / "log.csv")

    def predictions(self) -> list[Predictions]:
        """What its model said; none if that cannot be read."""
        try:
            return load_predictions(self.folder / "predictions.npz")
        except TrainerError:
            return []

    def speakers(self) -> dict[str, list[str]]:
        """Speakers of each part by `split.json`; nothing if that cannot be read."""
        try:
            content = json.loads((self.folder / "split.json").read_text("utf-8"))
            return {str(k): [str(name) for name in v] for k, v in content["speakers"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


@dataclass(slots=True)
class Experiment:
    """Everything that the page shows.

    Attributes
    ----------
    details
        `experiment.json`, empty if there is none.
    notes
        what is missing and why, as sentences.
    """

    folder: Path
    name: str
    runs: list[FoldRun]
    details: dict[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    recipes: dict[str, Recipe] = field(default_factory=dict)
    report: ExperimentReport | None = None
    notes: list[str] = field(default_factory=list)

    def of(self, protocol: str, model: str) -> list[FoldRun]:
        """The folds of a protocol and model."""
        return [run for run in self.runs if (run.protocol, run.model) == (protocol, model)]

    def entries(self) -> list[Entry]:
        """The report's, speaker-dependent ones last."""
        if self.report is None:
            return []
        return sorted(self.report.entries, key=lambda entry: entry.speaker_dependent)

    def keys(self) -> list[Key]:
        """Protocols and models: those of `entries`, and then those that have only runs."""
        reported = [(entry.protocol, entry.model) for entry in self.entries()]
        return list(dict.fromkeys([*reported, *((run.protocol, run.model) for run in self.runs)]))


def read_experiment(folder: Path) -> Experiment:
    """Read a folder.

    Raises
    ------
    TrainerError
        it is not there, or nothing in it is of an experiment.
    """
    if not folder.is_dir():
        raise TrainerError(f"{folder} is not a folder: name the folder of an experiment.")
    experiment = Experiment(folder, folder.resolve().name, [])
    _read_details(experiment)
    _read_recipe(experiment)
    try:
        experiment.report = load_experiment_report(folder)
        experiment.name = experiment.report.name or experiment.name
    except TrainerError as error:
        experiment.notes.append(f"There are no figures yet. {error}")
    if not (experiment.runs or experiment.recipe_text or experiment.report):
        raise TrainerError(
            f"{folder} holds no experiment: neither recipe.toml, experiment.json nor report.json."
        )
    return experiment


def _read_details(experiment: Experiment) -> None:
    path = experiment.folder / "experiment.json"
    try:
        details = json.loads(path.read_text("utf-8"))
        if not isinstance(details, dict):
            raise ValueError("it is not an object")
        experiment.details = details
        experiment.runs = [
            FoldRun(
                protocol=str(run["protocol"]),
                model=str(run["model"]),
                fold=str(run["fold"]),
                folder=experiment.folder / str(run.get("folder") or _usual(run)),
                state=str(run.get("state") or "unknown"),
                reason=str(run.get("reason") or ""),
            )
            for run in details.get("runs", [])
        ]
        return
    except FileNotFoundError:
        experiment.notes.append(f"{path.name} is missing: the runs are those found in the folder.")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        experiment.notes.append(f"{path.name} cannot be read ({error}).")
    experiment.runs = list(_found(experiment.folder))


def _usual(run: dict[str, Any]) -> str:
    return f"{run['protocol']}/{run['model']}/{run['fold']}"


def _found(folder: Path) -> Iterator[FoldRun]:
    files = [*folder.glob("*/*/*/log.csv"), *folder.glob("*/*/*/predictions.npz")]
    for run in sorted({path.parent for path in files}):
        protocol, model, fold = run.relative_to(folder).parts
        yield FoldRun(protocol, model, fold, run)


def _read_recipe(experiment: Experiment) -> None:
    path = experiment.folder / "recipe.toml"
    try:
        experiment.recipe_text = path.read_text("utf-8")
        experiment.recipes = load_recipes(str(path))
    except FileNotFoundError:
        experiment.notes.append("recipe.toml is missing.")
    except (OSError, UnicodeDecodeError, TrainerError) as error:
        experiment.notes.append(f"recipe.toml cannot be read: {error}")
