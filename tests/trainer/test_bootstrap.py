"""Intervals: they hold the figure, shrink with data, and equal a plain loop over draws."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.bootstrap import (
    calibration_spans,
    draw_groups,
    draw_utterances,
    span,
    spans_of,
    uar_difference,
)
from trainer.metrics import (
    AVERAGES,
    Float64,
    Int64,
    averages,
    confusion_matrix,
    expected_calibration_error,
    log_losses,
    uar,
)


def _said(count: int, right: float, seed: int = 0, labels: int = 4) -> tuple[Int64, Int64]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, count)
    hit = rng.random(count) < right
    return truth, np.where(hit, truth, (truth + 1) % labels)


def _scores(truth: Int64, sharpness: float) -> Float64:
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((len(truth), 4)) + 1.5 * np.eye(4)[truth]
    exponent = np.exp(sharpness * logits)
    return np.asarray(exponent / exponent.sum(axis=1, keepdims=True), np.float64)


def _uar_interval(truth: Int64, predicted: Int64, seed: int = 0) -> tuple[float, float]:
    alone = np.zeros(len(truth), np.int64)
    return spans_of(truth, predicted, alone, 4, seed=seed).by_utterance["uar"]


def test_the_interval_holds_the_figure_and_shrinks() -> None:
    widths = []
    for count in (100, 2_000):
        truth, predicted = _said(count, 0.7)
        low, high = _uar_interval(truth, predicted)
        assert low < uar(confusion_matrix(truth, predicted, 4)) < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_drawing_cells_is_drawing_utterances() -> None:
    truth, predicted = _said(300, 0.6)
    rng = np.random.default_rng(1)
    plain = [
        averages(confusion_matrix(truth[rows], predicted[rows], 4))
        for rows in rng.integers(0, 300, size=(2_000, 300))
    ]
    found = spans_of(truth, predicted, np.zeros(300, np.int64), 4, draws=2_000)
    assert found.by_speaker is None
    for name in AVERAGES:
        expected = span(np.asarray([values[name] for values in plain]))
        assert found.by_utterance[name] == pytest.approx(expected, abs=0.008)


def test_draws_keep_the_number_of_rows_and_what_is_not_there() -> None:
    rng = np.random.default_rng(0)
    table = np.array([[5, 0], [2, 3]])
    drawn = draw_utterances(table, 50, rng)
    assert drawn.shape == (50, 2, 2)
    assert (drawn.sum(axis=(1, 2)) == 10).all()
    assert not drawn[:, 0, 1].any()
    assert not draw_utterances(np.zeros((2, 2), np.int64), 3, rng).any()
    groups = draw_groups(np.stack([table, 10 * table]), 50, rng)
    assert set(groups[:, 0, 0]) <= {10.0, 55.0, 100.0}


def test_speakers_who_differ_widen_the_interval() -> None:
    truth = np.tile(np.arange(4), 100)
    speaker = np.repeat(np.arange(10), 40)
    # every utterance of half of the speakers is right, every one of the others wrong
    predicted = np.where(speaker < 5, truth, (truth + 1) % 4)
    found = spans_of(truth, predicted, speaker, 4)
    assert found.by_speaker is not None
    low, high = found.by_utterance["uar"]
    speaker_low, speaker_high = found.by_speaker["uar"]
    assert speaker_low < low < 0.5 < high < speaker_high
    assert speaker_high - speaker_low > 3 * (high - low)


def test_calibration_intervals_are_those_of_a_plain_loop() -> None:
    truth = np.random.default_rng(4).integers(0, 4, 200)
    scores = _scores(truth, 2.0)
    speaker = np.repeat(np.arange(5), 40)
    found = calibration_spans(scores, truth, speaker, draws=1_500)
    top, right = scores.max(axis=1), scores.argmax(axis=1) == truth
    rng = np.random.default_rng(9)
    draws = rng.integers(0, 200, size=(1_500, 200))
    ece = span(np.asarray([expected_calibration_error(top[r], right[r]) for r in draws]))
    nll = span(np.asarray([log_losses(scores, truth)[r].mean() for r in draws]))
    assert found.by_utterance["ece"] == pytest.approx(ece, abs=0.01)
    assert found.by_utterance["nll"] == pytest.approx(nll, abs=0.03)
    assert found.by_speaker is not None
    people = rng.integers(0, 5, size=(1_500, 5))
    rows = [np.concatenate([np.arange(40) + 40 * p for p in who]) for who in people]
    ece = span(np.asarray([expected_calibration_error(top[r], right[r]) for r in rows]))
    assert found.by_speaker["ece"] == pytest.approx(ece, abs=0.01)


def test_many_rows_are_drawn_in_pieces() -> None:
    truth = np.random.default_rng(4).integers(0, 4, 5_000)
    found = calibration_spans(_scores(truth, 1.0), truth, np.zeros(5_000, np.int64), draws=450)
    low, high = found.by_utterance["nll"]
    assert low < log_losses(_scores(truth, 1.0), truth).mean() < high


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    truth, first = _said(400, 0.6)
    second = first.copy()
    wrong = np.flatnonzero(first != truth)[:40]
    second[wrong] = truth[wrong]
    speaker = np.arange(400) % 8
    found = uar_difference(truth, first, second, speaker, 4)
    expected = uar(confusion_matrix(truth, second, 4)) - uar(confusion_matrix(truth, first, 4))
    assert found.value == pytest.approx(expected)
    low, high = found.by_utterance
    assert 0 < low < found.value < high
    one = _uar_interval(truth, first)
    assert high - low < 0.7 * (one[1] - one[0])
    assert found.by_speaker is not None
    assert found.by_speaker[0] < found.value < found.by_speaker[1]
    same = uar_difference(truth, first, first, np.zeros(400, np.int64), 4)
    assert (same.value, same.by_utterance, same.by_speaker) == (0.0, (0.0, 0.0), None)


def test_labels_that_a_draw_misses_do_not_count() -> None:
    values = np.array([0.1, np.nan, 0.3])
    assert span(values, 1.0) == (0.1, 0.3)
    assert np.isnan(span(np.array([np.nan]))).all()


def test_the_seed_makes_the_interval() -> None:
    truth, predicted = _said(100, 0.7)
    assert _uar_interval(truth, predicted, seed=1) == _uar_interval(truth, predicted, seed=1)
    assert _uar_interval(truth, predicted, seed=1) != _uar_interval(truth, predicted, seed=2)
