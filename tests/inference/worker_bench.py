"""Inference workers under test: models that can be held, and what came back."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from serd.errors import ModelError
from serd.inference.model import Segment
from serd.inference.worker import (
    DropReason,
    InferenceWorker,
    Result,
    SegmentJob,
    WorkerOptions,
)
from serd.types import Float32Array

DEADLINE_S = 20.0
FOR_EVER_MS = 3_600_000.0


class FakeModel:
    """Scores a segment by its first sample; can be held, and fails on those that begin loud."""

    largest_batch = 64
    compute_ns = 0

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def score(self, segments: Sequence[Segment]) -> Float32Array:
        self.entered.release()
        assert self.gate.wait(DEADLINE_S)
        firsts = np.array([segment.audio[0] for segment in segments], np.int64)
        self.batches.append(firsts.tolist())
        self.compute_ns += 1000
        if (firsts >= 30000).any():
            raise ModelError("model_not_finite", "a loud row")
        return np.stack([firsts, -firsts], axis=1).astype(np.float32)


class Answers:
    """What came back, in order."""

    def __init__(self) -> None:
        self.batches: list[list[Result]] = []
        self.dropped: list[tuple[SegmentJob, str]] = []
        self._lock = threading.Lock()

    def on_results(self, results: list[Result]) -> None:
        with self._lock:
            self.batches.append(results)

    def on_dropped(self, job: SegmentJob, reason: DropReason) -> None:
        with self._lock:
            self.dropped.append((job, reason))

    @property
    def scored(self) -> list[int]:
        return [result.job.context for results in self.batches for result in results]

    @property
    def lost(self) -> list[tuple[int, str]]:
        return [(job.context, reason) for job, reason in self.dropped]


def job(number: int, samples: int = 4, sample_rate_hz: int = 16000) -> SegmentJob:
    return SegmentJob(np.full(samples, number, np.int16), sample_rate_hz, 0, number)


class WatchedClock:
    """Tells when the worker's thread looks at the time, which it does before every wait.

    It looks with its lock held and gives the lock up only by waiting: whoever has seen a look
    and then submits a job finds the thread asleep.
    """

    def __init__(self) -> None:
        self.looked = threading.Event()

    def monotonic_ns(self) -> int:
        if threading.current_thread().name == "serd-inference":
            self.looked.set()
        return time.monotonic_ns()

    def unix_ns(self) -> int:
        return time.time_ns()


class Bench:
    """A worker, its model and what came back."""

    def __init__(self, model: Any = None, **options: Any) -> None:
        self.model = model or FakeModel()
        self.answers = Answers()
        self.clock = WatchedClock()
        self.worker = InferenceWorker(
            [self.model],
            WorkerOptions(**options),
            on_results=self.answers.on_results,
            on_dropped=self.answers.on_dropped,
            clock=self.clock,
        )

    def hold(self) -> None:
        """Make the model stop inside its first batch, and wait until it is there."""
        self.model.gate.clear()
        self.worker.submit(job(0))
        self.worker.start()
        assert self.model.entered.acquire(timeout=DEADLINE_S)


class Held(FakeModel):
    """Stops inside a batch that begins with its number, until it is let go."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.held = threading.Event()
        self.let_go = threading.Event()

    def score(self, segments: Sequence[Segment]) -> Float32Array:
        if segments[0].audio[0] == self.number:
            self.held.set()
            assert self.let_go.wait(DEADLINE_S)
        return super().score(segments)
