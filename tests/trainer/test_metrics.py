"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from trainer.metrics import (
    accuracy,
    confusion_matrix,
    expected_calibration_error,
    format_confusion,
    uar,
    uar_interval,
)

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=80)


@given(PAIRS)
def test_scikit_learn_agrees(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.asarray(pairs, np.int64).T
    confusion = confusion_matrix(truth, predicted, 5)
    assert np.array_equal(
        confusion, reference.confusion_matrix(truth, predicted, labels=list(range(5)))
    )
    recall = reference.recall_score(truth, predicted, labels=sorted(set(truth)), average="macro")
    assert uar(confusion) == pytest.approx(recall)
    assert accuracy(confusion) == pytest.approx(reference.accuracy_score(truth, predicted))


def test_nothing_gives_nan() -> None:
    empty = np.zeros((3, 3), np.int64)
    assert np.isnan(uar(empty))
    assert np.isnan(accuracy(empty))


def test_the_interval_holds_the_figure_and_shrinks() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 2_000)
    predicted = np.where(rng.random(2_000) < 0.7, truth, (truth + 1) % 4)
    widths = []
    for count in (100, 2_000):
        figure = uar(confusion_matrix(truth[:count], predicted[:count], 4))
        low, high = uar_interval(truth[:count], predicted[:count], 4)
        assert low < figure < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.65, 0.65])
    correct = np.array([True, False, True, True])
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx(
        0.5 * abs(0.5 - 0.95) + 0.5 * abs(1.0 - 0.65)
    )
    assert expected_calibration_error(np.ones(3), np.ones(3, np.bool_)) == 0.0


def test_the_table_names_rows_and_columns() -> None:
    table = format_confusion(np.array([[2, 1], [0, 3]]), ["sad", "happy"]).splitlines()
    assert table[0].split() == ["sad", "happy"]
    assert table[2].split() == ["happy", "0", "3"]
