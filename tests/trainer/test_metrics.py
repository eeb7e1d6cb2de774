"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from trainer.metrics import (
    AVERAGES,
    accuracy,
    averages,
    confusion_matrix,
    expected_calibration_error,
    f1_scores,
    format_confusion,
    log_losses,
    precisions,
    recalls,
    reliability,
    uar,
)

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=80)


@given(PAIRS)
def test_scikit_learn_agrees(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.asarray(pairs, np.int64).T
    confusion = confusion_matrix(truth, predicted, 5)
    assert np.array_equal(
        confusion, reference.confusion_matrix(truth, predicted, labels=list(range(5)))
    )
    there = sorted(set(truth.tolist()))
    found = averages(confusion)
    assert set(found) == set(AVERAGES)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, predicted))
    options = {"labels": there, "zero_division": 0.0}
    for average, suffix in (("macro", ""), ("weighted", "_weighted")):
        precision, recall, f1, _ = reference.precision_recall_fscore_support(
            truth, predicted, average=average, **options
        )
        assert found["precision" + suffix] == pytest.approx(precision)
        assert found["f1" + suffix] == pytest.approx(f1)
        assert found["accuracy" if suffix else "uar"] == pytest.approx(recall)
    by_class = reference.precision_recall_fscore_support(truth, predicted, **options)
    ours = (precisions(confusion), recalls(confusion), f1_scores(confusion))
    for mine, theirs in zip(ours, by_class, strict=False):
        assert mine[there] == pytest.approx(theirs)
        assert np.isnan(np.delete(mine, there)).all()
    assert uar(confusion) == found["uar"]
    assert accuracy(confusion) == found["accuracy"]


@given(st.lists(PAIRS, min_size=2, max_size=4))
def test_many_matrices_are_as_one_by_one(draws: list[list[tuple[int, int]]]) -> None:
    columns = [np.asarray(pairs, np.int64).T for pairs in draws]
    each = [confusion_matrix(truth, predicted, 5) for truth, predicted in columns]
    together = averages(np.stack(each))
    for name in AVERAGES:
        assert together[name] == pytest.approx([float(averages(c)[name]) for c in each])


def test_nothing_gives_nan() -> None:
    empty = np.zeros((3, 3), np.int64)
    assert np.isnan(uar(empty))
    assert np.isnan(accuracy(empty))
    assert all(np.isnan(value) for value in averages(empty).values())


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.65, 0.65])
    correct = np.array([True, False, True, True])
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx(
        0.5 * abs(0.5 - 0.95) + 0.5 * abs(1.0 - 0.65)
    )
    assert expected_calibration_error(np.ones(3), np.ones(3, np.bool_)) == 0.0
    assert expected_calibration_error(np.zeros(0), np.zeros(0, np.bool_)) == 0.0


@given(
    st.lists(
        st.tuples(st.integers(0, 100).map(lambda c: c / 100), st.booleans()),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 20),
)
def test_the_reliability_diagram_counts_everything(
    rows: list[tuple[float, bool]], bins: int
) -> None:
    confidence = np.asarray([c for c, _ in rows])
    correct = np.asarray([right for _, right in rows])
    found = reliability(confidence, correct, bins)
    assert found.count.sum() == len(rows)
    some = found.count > 0
    for values, mean in ((found.confidence, confidence.mean()), (found.accuracy, correct.mean())):
        assert np.isnan(values[~some]).all()
        assert (values[some] * found.count[some]).sum() / len(rows) == pytest.approx(mean)
    inside = np.flatnonzero(some)
    assert (found.confidence[inside] >= inside / bins - 1e-9).all()
    assert (found.confidence[inside] <= (inside + 1) / bins + 1e-9).all()
    assert abs(confidence.mean() - correct.mean()) <= found.error + 1e-9


def test_log_losses_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(4), 50)
    truth = rng.integers(0, 4, 50)
    assert log_losses(scores, truth).mean() == pytest.approx(
        reference.log_loss(truth, scores, labels=list(range(4)))
    )
    assert np.isfinite(log_losses(np.array([[1.0, 0.0]]), np.array([1]))).all()


def test_the_table_names_rows_and_columns() -> None:
    table = format_confusion(np.array([[2, 1], [0, 3]]), ["sad", "happy"]).splitlines()
    assert table[0].split() == ["sad", "happy"]
    assert table[2].split() == ["happy", "0", "3"]
