"""Distributions for the metrics, kept so that the threads they are about hardly notice."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serd.protocol.events import SegmentLatency
from serd.types import Int64Array

LATENCY_BOUNDS_S: Final = (
    *(0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 2.0, 5.0),
)
"""Upper bounds of the latency buckets, in seconds."""

BATCH_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the batch-size buckets, in segments."""

# Folded by whoever asks; by the noting thread where nobody asks, in less than a millisecond.
_MOST_PENDING = 1 << 10


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many observations fell into each bucket.

    `bounds` are inclusive upper bounds, ascending; `counts` has one entry more, for what is above
    the last; `total` is the sum of the observations.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """Pairs of a bound, as text, and the observations up to it: Prometheus' ``le`` buckets."""
        seen = 0
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            seen += count
            yield "+Inf" if bound is None else str(float(bound)), float(seen)


def of_sizes(counts: Sequence[int], bounds: Sequence[int] = BATCH_BOUNDS) -> Histogram:
    """A histogram from exact counts: ``counts[n]`` observations had the value `n`."""
    buckets = [0] * (len(bounds) + 1)
    sizes = np.arange(len(counts))
    for bucket, count in zip(np.searchsorted(bounds, sizes), counts, strict=True):
        buckets[bucket] += count
    total = float(sum(size * count for size, count in enumerate(counts)))
    return Histogram(tuple(map(float, bounds)), tuple(buckets), total)


class LatencyRecorder:
    """Histograms of where the time of judged segments went.

    `note` only keeps a reference; sorting into buckets is left to the thread that asks.
    """

    parts: Final = ("wait", "inference", "total")

    def __init__(self) -> None:
        self._pending: deque[SegmentLatency] = deque()
        self._lock = threading.Lock()
        self._bounds: NDArray[np.float64] = np.array(LATENCY_BOUNDS_S)
        self._counts: Int64Array = np.zeros((len(self.parts), len(LATENCY_BOUNDS_S) + 1), np.int64)
        self._totals: NDArray[np.float64] = np.zeros(len(self.parts))

    def note(self, latency: SegmentLatency) -> None:
        """Take one observation. Any thread."""
        self._pending.append(latency)
        if len(self._pending) > _MOST_PENDING:
            self._fold()

    def _fold(self) -> None:
        with self._lock:
            # What comes meanwhile is for the next time: under load this would not end.
            items = [self._pending.popleft() for _ in range(len(self._pending))]
            if not items:
                return
            seconds = np.array([(item.wait, item.inference, item.total) for item in items]) / 1000
            for part, values in enumerate(seconds.T):
                buckets = np.searchsorted(self._bounds, values)
                self._counts[part] += np.bincount(buckets, minlength=len(self._bounds) + 1)
            self._totals += seconds.sum(axis=0)

    def histograms(self) -> dict[str, Histogram]:
        """``wait``, ``inference`` and ``total``, in seconds, of everything noted so far."""
        self._fold()
        with self._lock:
            return {
                part: Histogram(LATENCY_BOUNDS_S, tuple(counts.tolist()), float(total))
                for part, counts, total in zip(self.parts, self._counts, self._totals, strict=True)
            }
