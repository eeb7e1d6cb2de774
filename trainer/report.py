"""The figures of an experiment: `report.json`, made from the predictions of its folds.

An `ExperimentReport` holds an `Entry` for each protocol and model. An entry's `rows` are figures of
whole utterances: of all of them pooled over the folds, and by fold, corpus, sex, language and
intensity, each for a part (validation, test), a condition (clean, telephone, whole file) and for
who competes:

- "all labels": every label that the model knows may win, as in the daemon;
- "labels of the corpus": only the labels that occur in the utterance's corpus may win, as in
  figures published on one corpus. Left out where there is no difference.

Scores are calibrated by fold before segments are averaged. Intervals are 95 % percentile
bootstrap intervals, over utterances and, for two speakers or more, over speakers; `shown` is the
one over speakers once there are `ENOUGH_SPEAKERS`. Anything that is not defined is null.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainer.errors import TrainerError
from trainer.predictions import Condition
from trainer.splits import Part

ENOUGH_SPEAKERS = 5

Competing = Literal["all labels", "labels of the corpus"]
Group = Literal["all", "fold", "corpus", "sex", "language", "intensity"]
Source = Literal["validation", "test of the other folds", "none"]
Number = float | None
Span = tuple[Number, Number]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(_Model):
    """A figure and its intervals."""

    value: Number
    by_utterance: Span | None = None
    by_speaker: Span | None = None


class ClassFigures(_Model):
    """Figures of one label; `count` utterances have it in truth."""

    label: str
    count: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


class Bins(_Model):
    """A reliability diagram, bins of equal width of the top score from 0 to 1."""

    count: list[int]
    confidence: list[Number]
    accuracy: list[Number]


class Row(_Model):
    """Figures of some utterances.

    `uar` is macro-averaged recall; precision and f1 are macro averages over the labels that occur
    in the truth, `…_weighted` weighted by support (recall weighted so is accuracy). `ece` is the
    expected calibration error of the utterances' top scores, `nll` the mean negative
    log-likelihood. `classes` and `bins` are there for the groups "all" and "corpus".
    """

    part: Part
    condition: Condition
    competing: Competing
    group: Group
    name: str
    count: int
    speakers: int
    accuracy: Estimate
    uar: Estimate
    precision: Estimate
    f1: Estimate
    precision_weighted: Estimate
    f1_weighted: Estimate
    ece: Estimate
    nll: Estimate
    confusion: list[list[int]]
    classes: list[ClassFigures] = []
    bins: Bins | None = None

    def shown(self, estimate: Estimate) -> Span | None:
        """The interval to show of a figure of this row."""
        if self.speakers >= ENOUGH_SPEAKERS and estimate.by_speaker is not None:
            return estimate.by_speaker
        return estimate.by_utterance

    @property
    def interval_over(self) -> str:
        """What the interval shown was drawn over."""
        return "speakers" if self.speakers >= ENOUGH_SPEAKERS else "utterances"


class Loss(_Model):
    """UAR clean less UAR over the telephone, in points, on the same test utterances."""

    competing: Competing
    group: Group
    name: str
    points: Estimate


class FoldMean(_Model):
    """UAR and accuracy averaged over folds, and their standard deviation over folds."""

    condition: Condition
    competing: Competing
    uar: Number
    uar_deviation: Number
    accuracy: Number
    accuracy_deviation: Number


class FoldCalibration(_Model):
    """What one fold's scores were calibrated with, and what that was fitted on."""

    fold: str
    source: Source
    temperature: float
    abstain_below: float


class Abstention(_Model):
    """Test segments whose top score is at the fold's threshold or above."""

    condition: Condition
    segments: int
    coverage: Number
    accuracy_kept: Number
    accuracy_all: Number


class CalibrationFigures(_Model):
    """Calibration of an entry; segments of clean and telephone together, as the daemon's are.

    `temperature` and `abstain_below` are for a model that ships: fitted on all held-out
    predictions of all folds, the validation ones if there are any (`source`), else the test ones.
    `error_before` and `error_after` are the expected calibration error there, without and with
    the temperature, and `coverage` the share at the threshold or above. `test_error_…` and
    `test_nll_…` are of test segments, each fold with its own temperature.
    """

    source: Part
    temperature: float
    abstain_below: float
    error_before: float
    error_after: float
    coverage: float
    folds: list[FoldCalibration]
    test_error_before: Number
    test_error_after: Number
    test_nll_before: Number
    test_nll_after: Number
    abstention: list[Abstention]


class Entry(_Model):
    """One protocol and model. `description` says in words what the protocol is."""

    protocol: str
    description: str
    speaker_dependent: bool
    model: str
    labels: tuple[str, ...]
    folds: list[str]
    rows: list[Row]
    losses: list[Loss]
    fold_means: list[FoldMean]
    calibration: CalibrationFigures | None

    @property
    def title(self) -> str:
        """What every table of this entry is headed with."""
        return f"{self.protocol} ({self.description}), model {self.model}"

    def row(
        self,
        condition: Condition = "clean",
        competing: Competing = "all labels",
        group: Group = "all",
        name: str = "",
        part: Part = "test",
    ) -> Row | None:
        """The row of these keys; where both competitions are the same, the one there is."""
        found = self.select(condition, competing, group, part)
        return next((row for row in found if row.name == name), None)

    def select(
        self,
        condition: Condition = "clean",
        competing: Competing = "all labels",
        group: Group = "all",
        part: Part = "test",
    ) -> list[Row]:
        """The rows of a group, in the order of their names."""
        rows = [r for r in self.rows if (r.part, r.condition, r.group) == (part, condition, group)]
        kinds = {row.competing for row in rows}
        wanted = competing if competing in kinds else "all labels"
        return [row for row in rows if row.competing == wanted]


class Unfinished(_Model):
    """A fold that has no predictions, and why."""

    protocol: str
    model: str
    fold: str
    reason: str


class ExperimentReport(_Model):
    """`report.json` of an experiment's folder."""

    version: Literal[2] = 2
    name: str
    entries: list[Entry]
    unfinished: list[Unfinished] = []

    def entry(self, protocol: str, model: str) -> Entry:
        """One protocol and model.

        Raises
        ------
        TrainerError
            there is none; the message lists those there are.
        """
        for entry in self.entries:
            if (entry.protocol, entry.model) == (protocol, model):
                return entry
        there = ", ".join(f"{e.protocol}/{e.model}" for e in self.entries) or "none"
        raise TrainerError(f"{self.name} has no figures of {protocol}/{model}; there are {there}.")


def save_report(report: ExperimentReport, folder: Path) -> Path:
    """Write `report.json`, whole or not at all.

    Raises
    ------
    TrainerError
        the folder cannot be written.
    """
    path = folder / "report.json"
    part = folder / f"report.{os.getpid()}.part"
    try:
        part.write_text(report.model_dump_json(indent=1) + "\n", "utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TrainerError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def load_experiment_report(folder: Path) -> ExperimentReport:
    """Read `report.json`.

    Raises
    ------
    TrainerError
        there is none, or it is not one.
    """
    path = folder / "report.json"
    try:
        return ExperimentReport.model_validate(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise TrainerError(f"{path} does not exist: evaluate the run first.") from None
    except (OSError, ValueError) as error:
        raise TrainerError(f"{path} is not a report of this trainer: {error}") from None
