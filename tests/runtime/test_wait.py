"""What is expected of the inference queue."""

from __future__ import annotations

import numpy as np
import pytest

from serd.inference.worker import Result, SegmentJob
from serd.runtime.wait import ExpectedWait

MS = 1_000_000


class Model:
    """Batches as the model's threads would have given them."""

    def __init__(self) -> None:
        self.now_ns = 500

    def batch(self, size: int, took_ns: int, told_ns: int = 0) -> list[Result]:
        """The next batch; telling its results takes `told_ns` beyond the model's own time."""
        started_ns = self.now_ns
        self.now_ns += took_ns
        job = SegmentJob(np.zeros(1, np.int16), 8000, 0)
        result = Result(job, np.ones(1, np.float32), started_ns, self.now_ns, size)
        self.now_ns += told_ns
        return [result] * size


@pytest.fixture
def model() -> Model:
    return Model()


def test_the_wait_is_the_queue_at_the_models_pace(model: Model) -> None:
    queued = 10
    wait = ExpectedWait(lambda: queued, 256)
    assert wait.ns == 0
    for _ in range(100):
        wait.learn(model.batch(8, 16 * MS))
    assert wait.ns == pytest.approx(20 * MS, rel=0.01)
    queued = 0
    assert wait.ns == 0


def test_the_pace_follows_the_model(model: Model) -> None:
    wait = ExpectedWait(lambda: 1, 256)
    for size, took_ms, batches in ((1, 3, 50), (8, 12, 50)):
        for _ in range(batches):
            wait.learn(model.batch(size, took_ms * MS))
        assert wait.ns == pytest.approx(took_ms * MS / size, rel=0.02)


def test_what_the_telling_takes_counts_while_segments_wait(model: Model) -> None:
    queued = 1
    wait = ExpectedWait(lambda: queued, 256)
    for _ in range(100):
        wait.learn(model.batch(8, 16 * MS, told_ns=8 * MS))
    assert wait.ns == pytest.approx(3 * MS, rel=0.02)


def test_pauses_without_segments_are_not_the_models(model: Model) -> None:
    queued = 0
    wait = ExpectedWait(lambda: queued, 256, workers=2)
    for _ in range(100):
        wait.learn(model.batch(8, 16 * MS))
        model.now_ns += 1000 * MS
    queued = 10
    assert wait.ns == pytest.approx(10 * MS, rel=0.02)


def test_a_batch_that_stood_still_says_little(model: Model) -> None:
    wait = ExpectedWait(lambda: 1, 256)
    for _ in range(50):
        wait.learn(model.batch(8, 16 * MS))
    wait.learn(model.batch(1, 900 * MS))
    assert wait.ns < 3 * MS


def test_a_wait_or_half_a_queue_is_too_much(model: Model) -> None:
    queued = 20
    wait = ExpectedWait(lambda: queued, 100)
    assert not wait.exceeds(1 * MS)
    for _ in range(100):
        wait.learn(model.batch(4, 8 * MS))
    assert wait.exceeds(30 * MS)
    assert not wait.exceeds(50 * MS)
    queued = 50
    assert wait.exceeds(1000 * MS)
