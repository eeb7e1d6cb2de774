"""Histograms for the metrics."""

from __future__ import annotations

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serd.protocol.events import SegmentLatency
from serd.runtime import histogram
from serd.runtime.histogram import BATCH_BOUNDS, LATENCY_BOUNDS_S, LatencyRecorder, of_sizes


@given(st.lists(st.floats(0, 20_000), max_size=60))
def test_buckets_hold_what_is_at_most_their_bound(values_ms: list[float]) -> None:
    recorder = LatencyRecorder()
    for value in values_ms:
        recorder.note(SegmentLatency(wait=value, inference=1.0, total=value * 2))
    found = recorder.histograms()
    for part, factor in (("wait", 1), ("total", 2)):
        seconds = [value * factor / 1000 for value in values_ms]
        expected = [sum(s <= bound for s in seconds) for bound in LATENCY_BOUNDS_S]
        buckets = list(found[part].cumulative())
        assert [count for _, count in buckets] == [*expected, len(seconds)]
        assert [le for le, _ in buckets] == [*(str(float(b)) for b in LATENCY_BOUNDS_S), "+Inf"]
        assert np.isclose(found[part].total, sum(seconds))
    assert sum(found["inference"].counts) == len(values_ms)


def test_asking_does_not_forget() -> None:
    recorder = LatencyRecorder()
    for _ in range(3):
        recorder.note(SegmentLatency(wait=1, inference=1, total=1))
        before = recorder.histograms()["total"]
    assert sum(before.counts) == 3


def test_nothing_is_lost_between_threads_that_note_and_one_that_asks() -> None:
    recorder = LatencyRecorder()
    latency = SegmentLatency(wait=1, inference=1, total=1)

    def note() -> None:
        for _ in range(5000):
            recorder.note(latency)

    threads = [threading.Thread(target=note) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        recorder.histograms()
    assert sum(recorder.histograms()["total"].counts) == 15_000


def test_what_nobody_asks_for_does_not_pile_up() -> None:
    recorder = LatencyRecorder()
    latency = SegmentLatency(wait=1, inference=1, total=1)
    for _ in range(histogram._MOST_PENDING + 10):
        recorder.note(latency)
        assert len(recorder._pending) <= histogram._MOST_PENDING
    assert sum(recorder.histograms()["wait"].counts) == histogram._MOST_PENDING + 10


@given(st.lists(st.integers(0, 9), max_size=300))
def test_batch_sizes_from_exact_counts(counts: list[int]) -> None:
    found = of_sizes(counts)
    for bound, (le, count) in zip(BATCH_BOUNDS, found.cumulative(), strict=False):
        assert float(le) == bound
        assert count == sum(counts[: bound + 1])
    assert sum(found.counts) == sum(counts)
    assert found.total == sum(size * count for size, count in enumerate(counts))
