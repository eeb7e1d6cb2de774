"""Calibration on validation segments: a temperature, and a threshold for abstaining."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from trainer.errors import TrainerError
from trainer.metrics import Float64, Int64, expected_calibration_error
from trainer.predictions import softmax


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the manifest stores, and what it was worth on validation.

    Attributes
    ----------
    temperature
        divides the logits before the softmax.
    abstain_below
        a top score under this is reported as abstained.
    error_before, error_after
        expected calibration error without and with temperature.
    coverage
        share of segments not abstained on.
    """

    temperature: float
    abstain_below: float
    error_before: float
    error_after: float
    coverage: float


def negative_log_likelihood(
    logits: Float64, truth: Int64, temperature: float, weight: Float64 | None = None
) -> float:
    """Mean over segments; logits float64 [segments, labels], truth int64 [segments].

    `weight` [segments] says how much each counts; left out: all alike.
    """
    scores = softmax(logits, temperature)[np.arange(len(truth)), truth]
    return float(-np.average(np.log(np.maximum(scores, 1e-12)), weights=weight))


def fit_temperature(logits: Float64, truth: Int64, weight: Float64 | None = None) -> float:
    """The temperature between 0.05 and 20 of least `negative_log_likelihood`.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    found = optimize.minimize_scalar(
        lambda log_t: negative_log_likelihood(logits, truth, float(np.exp(log_t)), weight),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(found.x))


def fit_threshold(scores: Float64, truth: Int64, precision: float, most: float) -> float:
    """The lowest top score from which up predictions are right at the rate `precision`.

    At most the share `most` of the segments is given up for it.

    Parameters
    ----------
    scores
        float64 [segments, labels], calibrated.
    """
    top = scores.max(axis=1)
    order = np.argsort(top)
    right = (scores.argmax(axis=1) == truth)[order].astype(np.float64)
    # accuracy of what stays when the k least sure segments are given up
    staying = np.cumsum(right[::-1])[::-1] / np.arange(len(right), 0, -1)
    limit = int(most * len(right))
    enough = np.flatnonzero(staying[: limit + 1] >= precision)
    k = int(enough[0]) if len(enough) else limit
    return float(np.clip(top[order[k]], 0.0, 0.99)) if k else 0.0


def calibrate(
    logits: Float64, truth: Int64, precision: float = 0.75, most: float = 0.15
) -> Calibration:
    """Fit temperature, then the threshold, on validation segments.

    The temperature is at least 1: validation speakers were recorded as the training speakers
    were, the daemon's were not, so scores may be flattened by what is seen here, not sharpened.

    Parameters
    ----------
    logits
        float64 [segments, labels]
    truth
        int64 [segments].

    Raises
    ------
    TrainerError
        there is nothing to fit on.
    """
    if not len(truth):
        raise TrainerError("Calibration needs validation utterances: the recipe names none.")
    temperature = max(1.0, round(fit_temperature(logits, truth), 3))
    scores, plain = softmax(logits, temperature), softmax(logits)
    correct = logits.argmax(axis=1) == truth
    threshold = round(fit_threshold(scores, truth, precision, most), 3)
    return Calibration(
        temperature=temperature,
        abstain_below=threshold,
        error_before=expected_calibration_error(plain.max(axis=1), correct),
        error_after=expected_calibration_error(scores.max(axis=1), correct),
        coverage=float((scores.max(axis=1) >= threshold).mean()),
    )
