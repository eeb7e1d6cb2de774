"""Temperature and threshold on scores whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.calibrate import calibrate, fit_temperature, fit_threshold, negative_log_likelihood
from trainer.errors import TrainerError
from trainer.metrics import Float64, Int64
from trainer.predictions import softmax


def _drawn(temperature: float, count: int = 20_000) -> tuple[Float64, Int64]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (count, 5))
    scores = softmax(logits, temperature)
    truth = (scores.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return logits, truth.astype(np.int64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found(temperature: float) -> None:
    logits, truth = _drawn(temperature)
    assert fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.05)


def test_it_is_a_minimum_and_mends_the_error() -> None:
    logits, truth = _drawn(2.5)
    found = calibrate(logits, truth)
    best = negative_log_likelihood(logits, truth, found.temperature)
    for other in (0.9, 1.1):
        assert negative_log_likelihood(logits, truth, found.temperature * other) > best
    assert found.error_after < 0.02 < found.error_before


def test_what_stays_above_the_threshold_is_right_often_enough() -> None:
    logits, truth = _drawn(1.5)
    scores = softmax(logits, 1.5)
    threshold = fit_threshold(scores, truth, precision=0.8, most=0.9)
    kept = scores.max(axis=1) >= threshold
    right = scores.argmax(axis=1) == truth
    assert right[kept].mean() >= 0.795
    assert right.mean() < 0.8


def test_no_more_is_given_up_than_allowed() -> None:
    logits, truth = _drawn(4.0)
    found = calibrate(logits, truth, precision=0.999, most=0.15)
    assert found.coverage == pytest.approx(0.85, abs=0.01)


def test_perfect_scores_need_no_threshold() -> None:
    truth = np.arange(8, dtype=np.int64) % 4
    scores = np.eye(4)[truth] * 0.8 + 0.05
    assert fit_threshold(scores, truth, precision=0.9, most=0.5) == 0.0


def test_scores_are_never_sharpened() -> None:
    logits, truth = _drawn(0.5)
    assert calibrate(logits, truth).temperature == 1.0


def test_nothing_to_fit_on_is_said() -> None:
    with pytest.raises(TrainerError, match="needs validation"):
        calibrate(np.zeros((0, 8)), np.zeros(0, np.int64))
