"""The figures of a trained run: made once, kept in the run's folder, read by export."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from trainer.audio import load_clips
from trainer.calibrate import Calibration, calibrate
from trainer.errors import TrainerError
from trainer.evaluate import (
    CONDITIONS,
    Condition,
    Predictor,
    Result,
    cut_segments,
    results,
    segment_logits,
    softmax,
    utterance_scores,
)
from trainer.metrics import Float64, Int64, expected_calibration_error
from trainer.prepare import Places, load_split
from trainer.recipe import Recipe
from trainer.splits import Part


class Figure(BaseModel):
    """One line of a report: metrics of a corpus under a condition."""

    model_config = ConfigDict(extra="forbid")

    part: Part
    corpus: str
    condition: Condition
    uar: float
    accuracy: float
    count: int
    interval: tuple[float, float]
    confusion: list[list[int]]


class Report(BaseModel):
    """`report.json` of a run's folder.

    `test` figures are there only once `evaluate --test` was asked for.
    """

    model_config = ConfigDict(extra="forbid")

    epoch: int
    temperature: float
    abstain_below: float
    error_before: float
    error_after: float
    coverage: float
    test_calibration_error: float | None = None
    figures: list[Figure]

    def part(self, part: Part) -> list[Figure]:
        """The figures of one part."""
        return [figure for figure in self.figures if figure.part == part]


def _figure(part: Part, result: Result) -> Figure:
    values = asdict(result) | {"part": part, "confusion": result.confusion.tolist()}
    return Figure.model_validate(values)


def make_report(
    predict: Predictor, recipe: Recipe, epoch: int, places: Places, with_test: bool
) -> Report:
    """Calibrate on validation and measure; on test only when asked.

    Scores are calibrated before segments are averaged, as in the daemon.
    """
    split = load_split(recipe, places)
    logits: dict[Part, list[Float64]] = {"validation": [], "test": []}
    truth: dict[Part, list[Int64]] = {"validation": [], "test": []}
    figures: list[Figure] = []
    calibration: Calibration | None = None
    parts: tuple[Part, ...] = ("validation", "test") if with_test else ("validation",)
    for part in parts:
        clips = load_clips(split.part(part), places.cache, progress=True)
        cut = [(c, cut_segments(clips, range(len(clips)), c)) for c in CONDITIONS]
        outputs = [segment_logits(predict, segments) for _, segments in cut]
        for (_, segments), output in zip(cut, outputs, strict=True):
            logits[part].append(output.astype(np.float64))
            truth[part].append(segments.truth[segments.owner])
        if calibration is None:
            calibration = calibrate(np.concatenate(logits[part]), np.concatenate(truth[part]))
        for (condition, segments), output in zip(cut, outputs, strict=True):
            scores = utterance_scores(output, segments, calibration.temperature)
            figures.extend(_figure(part, r) for r in results(scores, segments, condition))
    assert calibration is not None
    test_error = None
    if with_test:
        test_error = _calibration_error(logits["test"], truth["test"], calibration.temperature)
    return Report(
        epoch=epoch,
        test_calibration_error=test_error,
        figures=figures,
        **asdict(calibration),
    )


def _calibration_error(logits: list[Float64], truth: list[Int64], temperature: float) -> float:
    scores = softmax(np.concatenate(logits), temperature)
    correct = scores.argmax(axis=1) == np.concatenate(truth)
    return expected_calibration_error(scores.max(axis=1), correct)


def save_report(report: Report, folder: Path) -> Path:
    """Write `report.json`."""
    path = folder / "report.json"
    path.write_text(report.model_dump_json(indent=1) + "\n", "utf-8")
    return path


def load_report(folder: Path) -> Report:
    """Read `report.json`.

    Raises
    ------
    TrainerError
        there is none, or it is not one.
    """
    path = folder / "report.json"
    try:
        return Report.model_validate(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise TrainerError(f"{path} does not exist: evaluate the run first.") from None
    except ValueError as error:
        raise TrainerError(f"{path} is not a report of this trainer: {error}") from None


def format_report(report: Report) -> str:
    """A text table of the figures, one line a corpus and part, then the mean over corpora."""
    head = f"{'part':<11}{'corpus':<9}{'count':>6}"
    head += f"{'UAR':>7}{'95 %':>16}{'accuracy':>10}{'UAR telephone':>15}"
    lines = [head]
    for part in ("validation", "test"):
        figures = report.part(part)
        far = {f.corpus: f for f in figures if f.condition != "clean"}
        clean = [f for f in figures if f.condition == "clean"]
        for f in clean:
            span = f"{f.interval[0]:.3f} to {f.interval[1]:.3f}"
            lines.append(
                f"{part:<11}{f.corpus:<9}{f.count:>6}{f.uar:>7.3f}{span:>16}"
                f"{f.accuracy:>10.3f}{far[f.corpus].uar:>15.3f}"
            )
        if clean:
            mean = float(np.mean([f.uar for f in clean]))
            mean_far = float(np.mean([f.uar for f in far.values()]))
            lines.append(f"{part:<11}{'mean':<15}{mean:>7.3f}{'':>26}{mean_far:>15.3f}")
    lines.append(
        f"temperature {report.temperature:g}, abstain below {report.abstain_below:g} "
        f"(keeps {report.coverage:.0%} of validation segments), calibration error "
        f"{report.error_before:.3f} before, {report.error_after:.3f} after"
    )
    if report.test_calibration_error is not None:
        lines[-1] += f", {report.test_calibration_error:.3f} on test"
    return "\n".join(lines)
