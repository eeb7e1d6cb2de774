"""What is expected of the inference queue."""

from __future__ import annotations

import numpy as np
import pytest

from serd.inference.worker import Result, SegmentJob
from serd.runtime.wait import ExpectedWait

MS = 1_000_000


def _batch(size: int, took_ns: int) -> list[Result]:
    job = SegmentJob(np.zeros(1, np.int16), 8000, 0)
    return [Result(job, np.ones(1, np.float32), 500, 500 + took_ns, size)] * size


def test_the_wait_is_the_queue_at_the_models_pace() -> None:
    queued = 10
    wait = ExpectedWait(lambda: queued, 256)
    assert wait.ns == 0
    for _ in range(100):
        wait.learn(_batch(8, 16 * MS))
    assert wait.ns == pytest.approx(20 * MS, rel=0.01)
    queued = 0
    assert wait.ns == 0


def test_the_pace_follows_the_model() -> None:
    wait = ExpectedWait(lambda: 1, 256)
    for size, took_ms, batches in ((1, 3, 50), (8, 12, 50)):
        for _ in range(batches):
            wait.learn(_batch(size, took_ms * MS))
        assert wait.ns == pytest.approx(took_ms * MS / size, rel=0.02)


def test_a_batch_that_stood_still_says_little() -> None:
    wait = ExpectedWait(lambda: 1, 256)
    for _ in range(50):
        wait.learn(_batch(8, 16 * MS))
    wait.learn(_batch(1, 900 * MS))
    assert wait.ns < 3 * MS


def test_a_wait_or_half_a_queue_is_too_much() -> None:
    queued = 20
    wait = ExpectedWait(lambda: queued, 100)
    assert not wait.exceeds(1 * MS)
    for _ in range(100):
        wait.learn(_batch(4, 8 * MS))
    assert wait.exceeds(30 * MS)
    assert not wait.exceeds(50 * MS)
    queued = 50
    assert wait.exceeds(1000 * MS)
