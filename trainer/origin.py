"""What an experiment's folder tells of a model that is to be exported.

A fold with test speakers of its own is exported with its own figures. A model of kind "all", which
everybody trained, is exported with the figures and the calibration of the other protocols' folds:
models of the same recipe, heard on speakers that they had not been trained on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer.checkpoint import load_trained
from trainer.crossfit import CrossFitted, Scaling, cross_fit, held_folds
from trainer.errors import TrainerError
from trainer.experiment import RECIPE, RECORD, load_resolved
from trainer.models import EmotionModel
from trainer.one_run import CLASSICAL, SPLIT
from trainer.predictions import (
    DAEMON_CONDITIONS,
    Condition,
    Predictions,
    join,
    load_predictions,
)
from trainer.protocol_settings import ProtocolSettings, is_speaker_dependent
from trainer.recipe import Recipe
from trainer.report import Entry
from trainer.reporting.build import FoldRun, entry_of, read_experiment
from trainer.splits import PARTS, Part

_ORDER = ("k-fold", "leave-one-speaker-out", "cross-corpus", "held-out")
"""Which protocol calibrates a model that everybody trained, the best first."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A trained model and what is known of it.

    Attributes
    ----------
    model
        the network, or the ONNX file of a forest or support vector machine.
    epoch
        that of the network's weights, else 0.
    protocol
        the one that trained this model.
    speakers
        `corpus/speaker` of each part.
    entries
        figures of each protocol to tell, on test speakers.
    missing
        folds that the figures lack, and why.
    calibrated_on
        in words.
    heard
        test predictions whose recordings serve to compare graphs.
    """

    recipe: Recipe
    model: EmotionModel | Path
    epoch: int
    protocol: ProtocolSettings
    speakers: dict[Part, list[str]]
    entries: tuple[Entry, ...]
    missing: tuple[str, ...]
    calibration: CrossFitted
    calibrated_on: str
    heard: Predictions

    @property
    def labels(self) -> tuple[str, ...]:
        """What the model tells apart, in the order of its logits."""
        return self.recipe.label_map.labels

    @property
    def speaker_dependent(self) -> bool:
        """Whether this model was trained on the speakers that it was tested on."""
        return is_speaker_dependent(self.protocol)

    @property
    def stands_for_folds(self) -> bool:
        """Whether the figures are of other models than this one."""
        return self.protocol.kind == "all"

    def lonely_labels(self) -> list[tuple[str, str]]:
        """Labels that occur in one corpus only, with it, as far as the test speakers tell."""
        where: dict[str, set[str]] = {}
        for entry in self.entries:
            for row in entry.select(group="corpus"):
                for label, counts in zip(entry.labels, row.confusion, strict=True):
                    if sum(counts):
                        where.setdefault(label, set()).add(row.name)
        return [(label, min(found)) for label, found in sorted(where.items()) if len(found) == 1]


def choose_fold(folder: Path) -> tuple[Path, FoldRun]:
    """The experiment and the fold that a folder means: a fold's own, or its experiment's.

    Of an experiment it is the fold that everybody trained, or the only one.

    Raises
    ------
    TrainerError
        it is neither, there are several to choose from, or training has not come to an end.
    """
    here = folder.resolve()
    root = next((p for p in (here, *here.parents[:3]) if (p / RECORD).is_file()), None)
    if root is None:
        raise TrainerError(f"{folder} is not the folder of an experiment, nor of one of its folds.")
    runs = read_experiment(root)
    inside = [run for run in runs if run.folder.resolve().is_relative_to(here)]
    chosen = [run for run in inside if run.protocol.kind == "all"] or inside
    if len(chosen) != 1:
        there = ", ".join(str(run.folder.relative_to(root)) for run in chosen) or "none"
        raise TrainerError(f"{folder}: name the fold to export; there are {there}.")
    run = chosen[0]
    if run.state != "done":
        raise TrainerError(
            f"{run.folder}: training has not come to an end ({run.reason or run.state})."
        )
    return root, run


def read_origin(folder: Path) -> Origin:
    """Read all that an export needs from an experiment's folder, or one of its folds'.

    Raises
    ------
    TrainerError
        see `choose_fold`; nothing was tested, or nothing held out to calibrate on; the model hears
        audio that the daemon would not make.
    """
    root, run = choose_fold(folder)
    recipe, model, epoch = _load(root, run)
    if recipe.prepare.noise_reduction != "none":
        raise TrainerError(
            f"prepare.noise_reduction = {recipe.prepare.noise_reduction!r}: this model was trained "
            "on audio whose noise was reduced, and the daemon does not reduce it. Train with "
            'prepare.noise_reduction = "none" to export.'
        )
    siblings = [r for r in read_experiment(root) if r.model == run.model]
    tested, missing = _tested(siblings if run.protocol.kind == "all" else [run])
    if not tested:
        raise TrainerError(
            f"{run.folder} has no test figures: no speaker was held out for it to be tested on."
        )
    if run.protocol.kind == "all":
        first = _calibrating(tested)
        calibration, calibrated_on = _fit_on_folds(first)
        by_fold = dict(zip((t.run.folder for t in first), calibration.by_fold, strict=False))
    else:
        first, by_fold = tested, {}
        calibration, calibrated_on = _fit_for_fold(tested[0], siblings)
    if calibration.scaling.method == "vector":
        tested = [t.scaled(by_fold.get(t.run.folder, calibration.scaling)) for t in tested]
    return Origin(
        recipe=recipe,
        model=model,
        epoch=epoch,
        protocol=run.protocol,
        speakers=_speakers(run),
        entries=_entries(run.model, tested),
        missing=tuple(missing),
        calibration=calibration,
        calibrated_on=calibrated_on,
        heard=join([p for t in first for p in t.part("test", ("clean",))]),
    )


@dataclass(frozen=True, slots=True)
class _Tested:
    """A fold and its predictions."""

    run: FoldRun
    predictions: list[Predictions]

    def part(
        self, part: Part, conditions: Sequence[Condition] = DAEMON_CONDITIONS
    ) -> list[Predictions]:
        return [
            p for p in self.predictions if p.part == part and p.condition in conditions and len(p)
        ]

    def scaled(self, scaling: Scaling) -> _Tested:
        changed = [
            replace(p, logits=scaling(p.logits.astype(np.float64)).astype(np.float32))
            for p in self.predictions
        ]
        return _Tested(self.run, changed)


def _load(root: Path, run: FoldRun) -> tuple[Recipe, EmotionModel | Path, int]:
    path = run.folder / CLASSICAL
    if not path.is_file():
        return load_trained(run.folder)
    recipes = load_resolved(root)
    if run.model not in recipes:
        raise TrainerError(f"{root / RECIPE} has no model {run.model!r}.")
    return recipes[run.model], path, 0


def _tested(runs: Sequence[FoldRun]) -> tuple[list[_Tested], list[str]]:
    """Folds with test predictions, and why others have none."""
    found, missing = [], []
    for run in runs:
        if run.protocol.kind == "all":
            continue
        if run.state != "done" or not run.predictions.is_file():
            reason = run.reason or run.state
            missing.append(f"{run.protocol.name}, {run.fold}: {reason}")
            continue
        fold = _Tested(run, load_predictions(run.predictions))
        if fold.part("test", ("clean",)):
            found.append(fold)
    return found, missing


def _calibrating(tested: Sequence[_Tested]) -> list[_Tested]:
    """The folds of the protocol that calibrates a model that everybody trained."""
    for kind in _ORDER:
        found = [t for t in tested if t.run.protocol.kind == kind]
        if found:
            name = found[0].run.protocol.name
            return [t for t in found if t.run.protocol.name == name]
    raise TrainerError(
        "Only a speaker-dependent protocol was measured, which says nothing of new speakers: "
        "add a protocol of another kind to the recipe, and train it."
    )


def _fit_on_folds(folds: Sequence[_Tested]) -> tuple[CrossFitted, str]:
    name = folds[0].run.protocol.name
    if len(folds) == 1:
        held = held_folds(folds[0].part("test"))
        return cross_fit(held), f"the test speakers of {name}, whose model did not hear them"
    words = f"the test speakers of the {len(folds)} folds of {name}, none heard by its fold's model"
    return cross_fit([fold.part("test") for fold in folds]), words


def _fit_for_fold(fold: _Tested, siblings: Sequence[FoldRun]) -> tuple[CrossFitted, str]:
    validation = fold.part("validation")
    if validation:
        words = "the validation speakers, who also chose the epoch (so at least 1)"
        return cross_fit(held_folds(validation), cautious=True), words
    others, _ = _tested(
        [r for r in siblings if r.protocol == fold.run.protocol and r.folder != fold.run.folder]
    )
    if not others:
        raise TrainerError(
            f"{fold.run.folder}: nothing was held out to calibrate on: neither validation speakers "
            "nor another fold."
        )
    return _fit_on_folds(others)


def _entries(model: str, tested: Sequence[_Tested]) -> tuple[Entry, ...]:
    """Figures of each protocol, speaker-dependent ones last."""
    protocols: dict[str, list[_Tested]] = {}
    for fold in tested:
        protocols.setdefault(fold.run.protocol.name, []).append(fold)
    found = [
        entry_of(folds[0].run.protocol, model, {t.run.fold: t.predictions for t in folds})
        for folds in protocols.values()
    ]
    return tuple(sorted(found, key=lambda entry: entry.speaker_dependent))


def _speakers(run: FoldRun) -> dict[Part, list[str]]:
    """Speakers of each part; where test speakers trained as well, all are under "train"."""
    path = run.folder / SPLIT
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        found: dict[Part, list[str]] = {
            part: sorted({str(name) for name in content["speakers"][part]}) for part in PARTS
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainerError(f"{path} does not tell the speakers of each part: {error}") from None
    if is_speaker_dependent(run.protocol):
        everyone = sorted({name for part in PARTS for name in found[part]})
        return {"train": everyone, "validation": [], "test": []}
    return found
