"""Experiments side by side, and the paired difference between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainer.bootstrap import Difference, uar_difference
from trainer.errors import TrainerError
from trainer.predictions import CONDITIONS, Condition, Predictions, load_predictions
from trainer.protocol_settings import ProtocolSettings, is_speaker_dependent
from trainer.report import Row
from trainer.reporting.build import FoldRun, read_experiment
from trainer.reporting.calibration import calibrate_folds
from trainer.reporting.rows import Scored, own_labels, rows_of, score

Identity = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Contender:
    """The test predictions of all folds of one protocol and model of a run.

    Attributes
    ----------
    run
        the folder that was named.
    own
        as `tested`, but only the labels of an utterance's corpus compete.
    """

    run: str
    protocol: ProtocolSettings
    model: str
    tested: dict[Condition, Scored]
    own: dict[Condition, Scored]

    @property
    def speaker_dependent(self) -> bool:
        """Whether test speakers may have trained."""
        return is_speaker_dependent(self.protocol)

    @property
    def name(self) -> str:
        """Run, protocol and model."""
        return f"{self.run} {self.protocol.name}/{self.model}"

    def row(self, condition: Condition, own: bool = False) -> Row | None:
        """Figures of all utterances under a condition."""
        scored = (self.own if own else self.tested).get(condition)
        return rows_of(scored, ())[0] if scored is not None else None


def contenders(run: Path, protocol: str | None = None, model: str | None = None) -> list[Contender]:
    """Every protocol and model of an experiment, or of the part of it that lies in `run`.

    Parameters
    ----------
    run
        an experiment's folder or one inside it: RUN, RUN/PROTOCOL or RUN/PROTOCOL/MODEL.

    Raises
    ------
    TrainerError
        there is no experiment, or nothing in it was tested.
    """
    root = _experiment_of(run)
    runs = [
        one
        for one in read_experiment(root)
        if one.folder.resolve().is_relative_to(run.resolve())
        and protocol in (None, one.protocol.name)
        and model in (None, one.model)
        and one.predictions.is_file()
    ]
    groups: dict[tuple[str, str], list[FoldRun]] = {}
    for one in runs:
        groups.setdefault((one.protocol.name, one.model), []).append(one)
    found = [_contender(run, members) for members in groups.values()]
    tested = [one for one in found if one is not None]
    if not tested:
        wanted = "/".join(name for name in (protocol, model) if name)
        raise TrainerError(f"{run} holds no test predictions{' of ' + wanted if wanted else ''}.")
    return tested


def tables(found: Sequence[Sequence[Contender]], mixed: bool = False) -> list[list[Contender]]:
    """Who is compared with whom: the contenders of each run, sorted into tables.

    All in one if `mixed` or if every run has one protocol, else one table a protocol's name.
    """
    flat = [one for run in found for one in run]
    if mixed or all(len({one.protocol.name for one in run}) == 1 for run in found):
        return [flat]
    names = list(dict.fromkeys(one.protocol.name for one in flat))
    return [[one for one in flat if one.protocol.name == name] for name in names]


def check_comparable(table: Sequence[Contender], mixed: bool) -> None:
    """Refuse what must not stand side by side unsaid.

    Raises
    ------
    TrainerError
        there is one contender only, labels differ, or, unless `mixed`, some figures are
        speaker-dependent and others are not.
    """
    first = table[0]
    if len(table) < 2:
        raise TrainerError(
            f"{first.name} is alone: name another run, or --protocol and --model that both have."
        )
    for other in table[1:]:
        if _labels(other) != _labels(first):
            raise TrainerError(
                f"{first.name} tells {', '.join(_labels(first))} apart, {other.name} "
                f"{', '.join(_labels(other))}: their figures cannot be compared."
            )
        if other.speaker_dependent != first.speaker_dependent and not mixed:
            dependent = other if other.speaker_dependent else first
            raise TrainerError(
                f"{dependent.name} is speaker-dependent, and the other is not: its figures say "
                "how well a model knows voices that it has trained on. --mixed shows them side by "
                "side all the same, without a difference."
            )


def on_common_utterances(table: Sequence[Contender]) -> list[Contender]:
    """The same contenders on the utterances that all of them tested.

    Raises
    ------
    TrainerError
        there are none.
    """
    common = set(_identities(_clean(table[0])))
    for one in table[1:]:
        common &= set(_identities(_clean(one)))
    if not common:
        raise TrainerError("These runs have no test utterance in common.")

    def kept(part: dict[Condition, Scored]) -> dict[Condition, Scored]:
        return {
            condition: scored.some(np.asarray([i in common for i in _identities(scored)]))
            for condition, scored in part.items()
        }

    return [replace(one, tested=kept(one.tested), own=kept(one.own)) for one in table]


def same_utterances(table: Sequence[Contender]) -> None:
    """Refuse contenders that were tested on different utterances.

    Raises
    ------
    TrainerError
        says how many each has that the other lacks.
    """
    if not table:
        return
    first = set(_identities(_clean(table[0])))
    for other in table[1:]:
        theirs = set(_identities(_clean(other)))
        if theirs != first:
            raise TrainerError(
                f"{table[0].name} was tested on {len(first - theirs)} utterances that "
                f"{other.name} was not, and {other.name} on {len(theirs - first)} others; "
                f"{len(first & theirs)} are common to both. --common compares on those alone."
            )


def difference(first: Contender, second: Contender, condition: Condition) -> Difference | None:
    """UAR of the second less that of the first, on the same utterances.

    None where one of them was not tested under the condition.
    """
    if condition not in first.tested or condition not in second.tested:
        return None
    one, other = first.tested[condition], second.tested[condition]
    place = {identity: i for i, identity in enumerate(_identities(other))}
    order = np.asarray([place[identity] for identity in _identities(one)])
    return uar_difference(
        one.truth, one.said, other.said[order], one.speaker, labels=len(one.labels)
    )


def _experiment_of(run: Path) -> Path:
    for folder in (run, *run.resolve().parents[:3]):
        if (folder / "experiment.json").is_file():
            return folder
    raise TrainerError(f"{run} is no experiment's folder, nor one inside it.")


def _contender(run: Path, members: Sequence[FoldRun]) -> Contender | None:
    folds: dict[str, list[Predictions]] = {
        one.fold: load_predictions(one.predictions) for one in members
    }
    temperature = {one.fold: one.temperature for one in calibrate_folds(folds)}
    labels = own_labels([p for predictions in folds.values() for p in predictions])
    tested: dict[Condition, Scored] = {}
    own: dict[Condition, Scored] = {}
    for condition in CONDITIONS:
        chosen = [
            (name, temperature[name], p)
            for name, predictions in folds.items()
            for p in predictions
            if p.part == "test" and p.condition == condition and len(p)
        ]
        if chosen:
            tested[condition] = score(chosen, None)
            own[condition] = score(chosen, labels)
    if "clean" not in tested:
        return None
    return Contender(str(run), members[0].protocol, members[0].model, tested, own)


def _clean(one: Contender) -> Scored:
    return one.tested["clean"]


def _labels(one: Contender) -> tuple[str, ...]:
    return _clean(one).labels


def _identities(scored: Scored) -> list[Identity]:
    """What names an utterance wherever its corpus lies: corpus, place in it, label.

    The place is what follows the last folder of the corpus's name, or the last three names.
    """
    found = []
    for corpus, path, truth in zip(
        scored.group["corpus"].tolist(), scored.path.tolist(), scored.truth.tolist(), strict=True
    ):
        names = Path(path).parts
        last = max((i for i, name in enumerate(names[:-1]) if name == corpus), default=None)
        place = names[-3:] if last is None else names[last + 1 :]
        found.append((corpus, "/".join(place), truth))
    return found
