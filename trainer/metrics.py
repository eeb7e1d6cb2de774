"""Classification metrics from a confusion matrix, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def confusion_matrix(truth: Int64, predicted: Int64, labels: int) -> Int64:
    """Counts, rows truth, columns predicted: int64 [labels, labels]."""
    cells = np.bincount(truth * labels + predicted, minlength=labels * labels)
    return cells.reshape(labels, labels).astype(np.int64)


def uar(confusion: Int64) -> float:
    """Unweighted average recall over the labels that occur in the truth; nan if none does."""
    count = confusion.sum(axis=1)
    there = count > 0
    if not there.any():
        return float("nan")
    return float(np.mean(np.diag(confusion)[there] / count[there]))


def accuracy(confusion: Int64) -> float:
    """Share of correct predictions; nan for none."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def uar_interval(
    truth: Int64,
    predicted: Int64,
    labels: int,
    coverage: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of UAR, utterances drawn with replacement."""
    rng = np.random.default_rng(seed)
    values = [
        uar(confusion_matrix(truth[rows], predicted[rows], labels))
        for rows in rng.integers(0, len(truth), size=(draws, len(truth)))
    ]
    tail = (1 - coverage) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def expected_calibration_error(
    confidence: Float64, correct: npt.NDArray[np.bool_], bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over bins of equal width, weighted by count.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(which, minlength=bins)
    confident = np.bincount(which, weights=confidence, minlength=bins)
    right = np.bincount(which, weights=correct.astype(np.float64), minlength=bins)
    return float(np.abs(confident - right).sum() / max(1, count.sum()))


def format_confusion(confusion: Int64, labels: Sequence[str]) -> str:
    """A text table of a confusion matrix, rows truth."""
    width = max(len(label) for label in labels) + 1
    lines = [" " * width + "".join(f"{label[:7]:>8}" for label in labels)]
    for label, row in zip(labels, confusion, strict=True):
        lines.append(f"{label:<{width}}" + "".join(f"{count:>8}" for count in row))
    return "\n".join(lines)
