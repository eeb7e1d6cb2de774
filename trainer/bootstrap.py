"""Percentile bootstrap intervals, all draws at once.

Utterances drawn with replacement say how much a figure owes to the utterances that happen to be
in the corpus; whole speakers drawn with replacement say how much it owes to the speakers, and are
the honest interval for speakers yet unheard, if there are enough of them.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.metrics import (
    BINS,
    Float64,
    Int64,
    averages,
    confidence_bins,
    log_losses,
)

DRAWS = 1000
COVERAGE = 0.95

Span = tuple[float, float]


def span(values: Float64, coverage: float = COVERAGE) -> Span:
    """Percentile interval over the first axis, draws that are nan left out; nan if all are."""
    left = values[~np.isnan(values)]
    if not len(left):
        return float("nan"), float("nan")
    tail = (1 - coverage) / 2
    low, high = np.quantile(left, [tail, 1 - tail])
    return float(low), float(high)


def draw_utterances(table: Int64, draws: int, rng: np.random.Generator) -> Int64:
    """Tables of counts that come of drawing as many rows as `table` counts, with replacement.

    A row's cell is all that counts, so the cells are drawn, not the rows: int64 [draws, *shape].
    """
    flat = table.ravel()
    cells = np.flatnonzero(flat)
    total = int(flat.sum())
    drawn = np.zeros((draws, flat.size), np.int64)
    if total:
        drawn[:, cells] = rng.multinomial(total, flat[cells] / total, size=draws)
    return drawn.reshape(draws, *table.shape)


def draw_groups(tables: npt.NDArray[np.generic], draws: int, rng: np.random.Generator) -> Float64:
    """Sums of tables of groups drawn with replacement: [groups, *shape] to [draws, *shape]."""
    many = len(tables)
    weight = rng.multinomial(many, np.full(many, 1 / many), size=draws).astype(np.float64)
    flat = np.asarray(tables.reshape(many, -1), np.float64)
    return np.asarray((weight @ flat).reshape(draws, *tables.shape[1:]), np.float64)


def group_tables(truth: Int64, predicted: Int64, group: Int64, labels: int) -> Int64:
    """A confusion matrix for each group, numbered from 0: int64 [groups, labels, labels]."""
    groups = int(group.max()) + 1 if len(group) else 0
    cell = (group * labels + truth) * labels + predicted
    flat = np.bincount(cell, minlength=groups * labels * labels)
    return flat.reshape(groups, labels, labels).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Spans:
    """Intervals of named figures, by utterance and, for two speakers or more, by speaker."""

    by_utterance: dict[str, Span]
    by_speaker: dict[str, Span] | None


def spans_of(
    truth: Int64,
    predicted: Int64,
    speaker: Int64,
    labels: int,
    figures: Callable[[Float64 | Int64], Mapping[str, Float64]] = averages,
    draws: int = DRAWS,
    seed: int = 0,
) -> Spans:
    """Intervals of figures of a confusion matrix.

    Parameters
    ----------
    truth, predicted, speaker
        int64 [utterances]; speakers are numbered from 0 without gaps.
    figures
        from [draws, labels, labels] to arrays [draws].
    """
    rng = np.random.default_rng(seed)
    tables = group_tables(truth, predicted, speaker, labels)
    drawn = figures(draw_utterances(tables.sum(axis=0), draws, rng))
    by_utterance = {name: span(values) for name, values in drawn.items()}
    if len(tables) < 2:
        return Spans(by_utterance, None)
    drawn = figures(draw_groups(tables, draws, rng))
    return Spans(by_utterance, {name: span(values) for name, values in drawn.items()})


def calibration_spans(
    scores: Float64,
    truth: Int64,
    speaker: Int64,
    draws: int = DRAWS,
    seed: int = 0,
    bins: int = BINS,
) -> Spans:
    """Intervals of the expected calibration error ("ece") and of the mean log loss ("nll").

    Parameters
    ----------
    scores
        float64 [utterances, labels].
    """
    rng = np.random.default_rng(seed)
    top = scores.max(axis=1)
    gap = top - (scores.argmax(axis=1) == truth)
    which, loss = confidence_bins(top, bins), log_losses(scores, truth)
    many = len(truth)
    ece, nll = np.empty(draws), np.empty(draws)
    # a few million draws of rows at a time
    step = max(1, 2_000_000 // max(1, many))
    for first in range(0, draws, step):
        rows = rng.integers(0, many, size=(min(step, draws - first), many))
        here = slice(first, first + len(rows))
        cell = which[rows] + bins * np.arange(len(rows))[:, None]
        summed = np.bincount(cell.ravel(), gap[rows].ravel(), bins * len(rows))
        ece[here] = np.abs(summed.reshape(-1, bins)).sum(axis=1) / many
        nll[here] = loss[rows].mean(axis=1)
    by_utterance = {"ece": span(ece), "nll": span(nll)}
    groups = int(speaker.max()) + 1
    if groups < 2:
        return Spans(by_utterance, None)
    table = np.zeros((groups, bins + 2))
    np.add.at(table, (speaker, which), gap)
    np.add.at(table[:, bins], speaker, loss)
    np.add.at(table[:, bins + 1], speaker, 1.0)
    drawn = draw_groups(table, draws, rng)
    count = drawn[:, bins + 1]
    return Spans(
        by_utterance,
        {
            "ece": span(np.abs(drawn[:, :bins]).sum(axis=1) / count),
            "nll": span(drawn[:, bins] / count),
        },
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """UAR of the second model less that of the first, and its intervals.

    `by_speaker` is there for two speakers or more.
    """

    value: float
    by_utterance: Span
    by_speaker: Span | None


def uar_difference(
    truth: Int64,
    first: Int64,
    second: Int64,
    speaker: Int64,
    labels: int,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """Paired bootstrap: both models are measured on the same draws.

    Parameters
    ----------
    truth, first, second, speaker
        int64 [utterances]: labels, what each model said, and speakers from 0 without gaps.
    """
    rng = np.random.default_rng(seed)
    triple = (truth * labels + first) * labels + second
    kinds, kind = np.unique(triple, return_inverse=True)
    groups = int(speaker.max()) + 1
    table = np.zeros((groups, len(kinds)), np.int64)
    np.add.at(table, (speaker, kind), 1)

    def difference(counts: npt.NDArray[np.generic]) -> Float64:
        weight = np.asarray(counts, np.float64)
        values = []
        for said in (kinds // labels % labels, kinds % labels):
            place = np.zeros((len(kinds), labels * labels))
            place[np.arange(len(kinds)), kinds // labels**2 * labels + said] = 1.0
            values.append(averages((weight @ place).reshape(-1, labels, labels))["uar"])
        return np.asarray(values[1] - values[0], np.float64)

    value = float(difference(table.sum(axis=0, keepdims=True))[0])
    by_utterance = span(difference(draw_utterances(table.sum(axis=0), draws, rng)))
    by_speaker = span(difference(draw_groups(table, draws, rng))) if groups > 1 else None
    return Difference(value, by_utterance, by_speaker)
