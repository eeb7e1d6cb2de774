"""Calibration of an experiment's folds, and what abstaining is worth.

A fold's temperature and threshold are never fitted on its own test speakers: they come from its
validation predictions or, where nobody validates, from what the other folds' models said of their
test speakers. Validation speakers have chosen the epoch, so what a model says of them looks better
than it is: a temperature fitted on them may flatten scores, never sharpen them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainer.calibrate import fit_temperature, fit_threshold
from trainer.metrics import Float64, Int64, expected_calibration_error, log_losses
from trainer.predictions import DAEMON_CONDITIONS, Condition, Predictions, softmax
from trainer.report import Abstention, CalibrationFigures, FoldCalibration, Source
from trainer.reporting.rows import number
from trainer.splits import Part

PRECISION = 0.75
MOST = 0.15
"""Of the threshold: the accuracy it is to reach, and the largest share it may give up for it."""


def calibrate_folds(folds: Mapping[str, Sequence[Predictions]]) -> list[FoldCalibration]:
    """The temperature and threshold of each fold."""
    held = {name: _of(predictions, "validation") for name, predictions in folds.items()}
    tested = {name: _of(predictions, "test") for name, predictions in folds.items()}
    found = []
    for name in folds:
        source: Source = "validation"
        data = held[name]
        if not data:
            source = "test of the other folds"
            data = [p for other, many in tested.items() if other != name for p in many]
        if data:
            temperature, threshold = _fit(*_segments(data), cautious=source == "validation")
            found.append(
                FoldCalibration(
                    fold=name, source=source, temperature=temperature, abstain_below=threshold
                )
            )
        else:
            found.append(
                FoldCalibration(fold=name, source="none", temperature=1.0, abstain_below=0.0)
            )
    return found


def calibration_figures(
    folds: Mapping[str, Sequence[Predictions]], fitted: Sequence[FoldCalibration]
) -> CalibrationFigures | None:
    """What the folds' calibration does to their test segments; and one for a model that ships.

    None where nothing was held out.
    """
    everything = [p for predictions in folds.values() for p in predictions]
    source: Part = "validation"
    held = _of(everything, source)
    if not held:
        source = "test"
        held = _of(everything, source)
    if not held:
        return None
    logits, truth = _segments(held)
    temperature, threshold = _fit(logits, truth, cautious=source == "validation")
    scores = softmax(logits, temperature)
    plain, calibrated, truths = _test_scores(folds, fitted, DAEMON_CONDITIONS)
    some = len(truths) > 0
    return CalibrationFigures(
        source=source,
        temperature=temperature,
        abstain_below=threshold,
        error_before=round(_error(softmax(logits), truth), 6),
        error_after=round(_error(scores, truth), 6),
        coverage=round(float((scores.max(axis=1) >= threshold).mean()), 6),
        folds=list(fitted),
        test_error_before=number(_error(plain, truths)) if some else None,
        test_error_after=number(_error(calibrated, truths)) if some else None,
        test_nll_before=number(log_losses(plain, truths).mean()) if some else None,
        test_nll_after=number(log_losses(calibrated, truths).mean()) if some else None,
        abstention=_abstention(folds, fitted) if some else [],
    )


def _of(predictions: Sequence[Predictions], part: Part) -> list[Predictions]:
    """Those of a part under the conditions that the daemon meets."""
    return [
        p for p in predictions if p.part == part and p.condition in DAEMON_CONDITIONS and len(p)
    ]


def _segments(predictions: Sequence[Predictions]) -> tuple[Float64, Int64]:
    logits = np.concatenate([p.logits for p in predictions]).astype(np.float64)
    return logits, np.concatenate([p.truth[p.owner] for p in predictions])


def _fit(logits: Float64, truth: Int64, cautious: bool) -> tuple[float, float]:
    temperature = round(fit_temperature(logits, truth), 3)
    if cautious:
        temperature = max(1.0, temperature)
    scores = softmax(logits, temperature)
    return temperature, round(fit_threshold(scores, truth, PRECISION, MOST), 3)


def _error(scores: Float64, truth: Int64) -> float:
    return expected_calibration_error(scores.max(axis=1), scores.argmax(axis=1) == truth)


def _test_scores(
    folds: Mapping[str, Sequence[Predictions]],
    fitted: Sequence[FoldCalibration],
    conditions: Sequence[Condition],
) -> tuple[Float64, Float64, Int64]:
    """Test segments of all folds: scores without and with their fold's temperature, and truth."""
    plain: list[Float64] = []
    calibrated: list[Float64] = []
    truths: list[Int64] = []
    for one in fitted:
        data = [p for p in _of(folds[one.fold], "test") if p.condition in conditions]
        if data:
            logits, truth = _segments(data)
            plain.append(softmax(logits))
            calibrated.append(softmax(logits, one.temperature))
            truths.append(truth)
    if not truths:
        return np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(0, np.int64)
    return np.concatenate(plain), np.concatenate(calibrated), np.concatenate(truths)


def _abstention(
    folds: Mapping[str, Sequence[Predictions]], fitted: Sequence[FoldCalibration]
) -> list[Abstention]:
    found = []
    for condition in DAEMON_CONDITIONS:
        kept: list[Float64] = []
        right: list[Float64] = []
        for one in fitted:
            _, scores, truth = _test_scores(folds, [one], [condition])
            if len(truth):
                kept.append((scores.max(axis=1) >= one.abstain_below).astype(np.float64))
                right.append((scores.argmax(axis=1) == truth).astype(np.float64))
        if kept:
            stays, hits = np.concatenate(kept), np.concatenate(right)
            found.append(
                Abstention(
                    condition=condition,
                    segments=len(stays),
                    coverage=number(stays.mean()),
                    accuracy_kept=number(hits[stays > 0].mean()) if stays.any() else None,
                    accuracy_all=number(hits.mean()),
                )
            )
    return found
