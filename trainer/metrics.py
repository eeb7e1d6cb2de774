"""Classification and calibration metrics, over any number of confusion matrices at once.

Every average is over the labels that occur in the truth: a model of eight labels is not charged
for the one that a corpus lacks, though it loses where it says it. Macro-averaged recall is the
unweighted average recall (UAR), and recall weighted by support is accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64] | npt.NDArray[np.float64]

AVERAGES = ("accuracy", "uar", "precision", "f1", "precision_weighted", "f1_weighted")
BINS = 15


def confusion_matrix(truth: Int64, predicted: Int64, labels: int) -> Int64:
    """Counts, rows truth, columns predicted: int64 [labels, labels]."""
    cells = np.bincount(truth * labels + predicted, minlength=labels * labels)
    return cells.reshape(labels, labels).astype(np.int64)


def _ratio(part: Counts, whole: Counts, there: npt.NDArray[np.bool_]) -> Float64:
    """part / whole, 0 where whole is 0, nan where not `there`."""
    value = np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
    return np.where(there, value, np.nan)


def _margins(confusion: Counts) -> tuple[Counts, Counts, Counts]:
    hits: Counts = np.asarray(np.diagonal(confusion, axis1=-2, axis2=-1), np.float64)
    truth: Counts = confusion.sum(axis=-1)
    said: Counts = confusion.sum(axis=-2)
    return hits, truth, said


def recalls(confusion: Counts) -> Float64:
    """Recall by label, nan where the truth lacks it: [..., labels, labels] to [..., labels]."""
    hits, truth, _ = _margins(confusion)
    return _ratio(hits, truth, truth > 0)


def precisions(confusion: Counts) -> Float64:
    """Precision of each label, 0 where it is never said, nan where the truth lacks it."""
    hits, truth, said = _margins(confusion)
    return _ratio(hits, said, truth > 0)


def f1_scores(confusion: Counts) -> Float64:
    """F1 of each label, nan where the truth lacks it."""
    hits, truth, said = _margins(confusion)
    return _ratio(2 * hits, truth + said, truth > 0)


def _or_nan(part: Counts, whole: Counts) -> Float64:
    """part / whole, nan where whole is 0."""
    empty = np.full(np.shape(whole), np.nan)
    return np.asarray(np.divide(part, whole, out=empty, where=whole > 0), np.float64)


def _macro(values: Float64) -> Float64:
    there = ~np.isnan(values)
    count = there.sum(axis=-1)
    total = np.where(there, values, 0.0).sum(axis=-1)
    return _or_nan(total, count)


def averages(confusion: Counts) -> dict[str, Float64]:
    """`AVERAGES` of each confusion matrix: [..., labels, labels] to arrays [...]; nan for none."""
    hits, truth, _ = _margins(confusion)
    total = truth.sum(axis=-1)

    def weighted(values: Float64) -> Float64:
        summed = (np.where(truth > 0, values, 0.0) * truth).sum(axis=-1)
        return _or_nan(summed, total)

    precision, f1 = precisions(confusion), f1_scores(confusion)
    return {
        "accuracy": _or_nan(hits.sum(axis=-1), total),
        "uar": _macro(recalls(confusion)),
        "precision": _macro(precision),
        "f1": _macro(f1),
        "precision_weighted": weighted(precision),
        "f1_weighted": weighted(f1),
    }


def uar(confusion: Int64) -> float:
    """Unweighted average recall over the labels that occur in the truth; nan if none does."""
    return float(_macro(recalls(confusion)))


def corpus_mean(truth: Int64, predicted: Int64, corpus: npt.NDArray[np.str_], labels: int) -> float:
    """UAR of each corpus, averaged over the corpora; all arrays are [rows]."""
    return float(
        np.mean(
            [
                uar(confusion_matrix(truth[rows], predicted[rows], labels))
                for rows in (corpus == name for name in np.unique(corpus))
            ]
        )
    )


def accuracy(confusion: Int64) -> float:
    """Share of correct predictions; nan for none."""
    return float(averages(confusion)["accuracy"])


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability diagram: bins of confidence, of equal width from 0 to 1.

    Attributes
    ----------
    count
        int64 [bins]
    confidence, accuracy
        float64 [bins], means in the bin; nan where it is empty.
    """

    count: Int64
    confidence: Float64
    accuracy: Float64

    @property
    def error(self) -> float:
        """Expected calibration error: mean gap, weighted by count.

        Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
        """
        there = self.count > 0
        gap = np.abs(self.confidence - self.accuracy)[there]
        return float((gap * self.count[there]).sum() / max(1, self.count.sum()))


def confidence_bins(confidence: Float64, bins: int = BINS) -> Int64:
    """The bin of each confidence: int64, from 0."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def reliability(
    confidence: Float64, correct: npt.NDArray[np.bool_], bins: int = BINS
) -> Reliability:
    """Confidence against accuracy; confidence is the top score."""
    which = confidence_bins(confidence, bins)
    count = np.bincount(which, minlength=bins)
    confident = np.bincount(which, weights=confidence, minlength=bins)
    right = np.bincount(which, weights=correct.astype(np.float64), minlength=bins)
    return Reliability(count.astype(np.int64), _or_nan(confident, count), _or_nan(right, count))


def expected_calibration_error(
    confidence: Float64, correct: npt.NDArray[np.bool_], bins: int = BINS
) -> float:
    """`Reliability.error` of these predictions; 0 for none."""
    return reliability(confidence, correct, bins).error


def log_losses(scores: Float64, truth: Int64) -> Float64:
    """Negative log-likelihood of each truth: float64 [rows]; scores float64 [rows, labels].

    Scores are taken to be 1e-12 at least.
    """
    return np.asarray(-np.log(np.maximum(scores[np.arange(len(truth)), truth], 1e-12)), np.float64)


def format_confusion(confusion: Int64, labels: Sequence[str]) -> str:
    """A text table of a confusion matrix, rows truth."""
    width = max(len(label) for label in labels) + 1
    lines = [" " * width + "".join(f"{label[:7]:>8}" for label in labels)]
    for label, row in zip(labels, confusion, strict=True):
        lines.append(f"{label:<{width}}" + "".join(f"{count:>8}" for count in row))
    return "\n".join(lines)
