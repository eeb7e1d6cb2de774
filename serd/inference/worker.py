"""The inference threads: take segments, batch them, score them, hand back results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

import structlog

from serd.clock import Clock, SystemClock
from serd.inference.batcher import Batcher
from serd.inference.model import Segment
from serd.threads import name_thread
from serd.types import Float32Array, Int16Array

_log = structlog.get_logger(__name__)


class DropReason(StrEnum):
    """Why a segment got no result."""

    OVERLOAD = "overload"
    MODEL_ERROR = "model_error"
    STOPPED = "stopped"


class Scorer(Protocol):
    """What the worker needs of a model; `EmotionModel` is one."""

    @property
    def largest_batch(self) -> int:
        """Segments beyond which a larger batch gains nothing."""
        ...

    @property
    def compute_ns(self) -> int:
        """CPU time spent inside the model's runtime so far."""
        ...

    def score(self, segments: Sequence[Segment]) -> Float32Array:
        """Probabilities float32 ``[n, labels]`` of `n` segments."""
        ...


@dataclass(slots=True)
class SegmentJob:
    """One segment to score.

    `audio`: int16 ``[n]`` at `sample_rate_hz`; `queued_ns`: monotonic time of its submission;
    `context`: whatever the submitter wants to find again in the result.
    """

    audio: Int16Array
    sample_rate_hz: int
    queued_ns: int
    context: Any = None


@dataclass(slots=True)
class Result:
    """The score of one job.

    `probabilities`: float32 ``[labels]``, sum 1; `started_ns`, `finished_ns`: monotonic times of
    its batch; `batch`: jobs that were run together.
    """

    job: SegmentJob
    probabilities: Float32Array
    started_ns: int
    finished_ns: int
    batch: int


@dataclass(frozen=True)
class WorkerOptions:
    """Bounds of the worker's queue, as in ``[inference]`` of the configuration."""

    queue_segments: int = 256
    max_batch: int = 32
    max_wait_ms: float = 1.0


class InferenceWorker:
    """Threads that score segments in batches.

    Every submitted job is answered exactly once: in a list given to `on_results`, or by
    `on_dropped` with a `DropReason`. Batches begin in the order of submission, and jobs of one
    batch come back in it; of several threads a later batch may be done before an earlier one.

    Parameters
    ----------
    models
        One for each thread, which uses it alone. With one thread on two cores 1,400 calls were too
        many with 0.7 of a core idle; a second one uses it.
    options
        Bounds of the queue and the batches. A full queue drops its oldest segment. Batches are
        no larger than the model has use for, so that results leave as early as they can.
    clock
        Monotonic time of waits and results.
    on_results
        Called on a worker's thread, by several at once.
    on_dropped
        Called on a worker's thread for ``model_error``, on the submitting thread for
        ``overload`` and ``stopped`` of a late `submit`, and on the thread that calls `stop`.

    Notes
    -----
    A batch that fails is tried again job by job, so that one segment which the model cannot take
    costs no other stream its result.
    """

    def __init__(
        self,
        models: Sequence[Scorer],
        options: WorkerOptions,
        on_results: Callable[[list[Result]], None],
        on_dropped: Callable[[SegmentJob, DropReason], None],
        clock: Clock | None = None,
    ) -> None:
        self._models = list(models)
        self._on_results = on_results
        self._on_dropped = on_dropped
        self._clock = clock or SystemClock()
        self._batcher: Batcher[SegmentJob] = Batcher(
            options.queue_segments,
            min(options.max_batch, *(model.largest_batch for model in models)),
            round(options.max_wait_ms * 1e6),
        )
        # Guards everything below and the batcher; signalled when any of it changes.
        self._changed = threading.Condition()
        self._busy = 0
        # What each thread has taken and not answered yet.
        self._unanswered: list[list[SegmentJob]] = [[] for _ in self._models]
        self._stopping = False
        self._failing = False
        self._threads: list[threading.Thread] = []
        self._counts = dict.fromkeys(
            (
                "segments_submitted",
                "segments_scored",
                "segments_dropped_overload",
                "segments_dropped_model_error",
                "segments_dropped_stopped",
                "batches",
                "inference_errors",
                "callback_errors",
            ),
            0,
        )

    @property
    def idle(self) -> bool:
        """Whether nothing waits, nothing runs and every answer has been given."""
        with self._changed:
            return self._is_idle()

    @property
    def queued(self) -> int:
        """Segments that wait, for submitters who can hold back. Cheap: takes no lock."""
        return len(self._batcher)

    @property
    def compute_ns(self) -> int:
        """CPU time of the threads inside the runtime; any thread may ask, without a lock."""
        return sum(model.compute_ns for model in self._models)

    def counts(self) -> dict[str, int]:
        """Monotonic counters, and the gauges ``queue_segments`` and ``queue_peak_segments``."""
        with self._changed:
            return {
                **self._counts,
                "queue_segments": len(self._batcher),
                "queue_peak_segments": self._batcher.peak,
            }

    def start(self) -> None:
        """Start the threads. Jobs submitted before have waited for them."""
        if self._threads:
            raise RuntimeError("the inference worker was started already")
        # Daemon threads: a model that never returns must not keep the process alive.
        self._threads = [
            threading.Thread(target=self._loop, args=(number,), name="serd-inference", daemon=True)
            for number in range(len(self._models))
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: SegmentJob) -> None:
        """Queue a job. Any thread; never waits for the model."""
        with self._changed:
            self._counts["segments_submitted"] += 1
            if self._stopping:
                lost, reason = job, DropReason.STOPPED
            else:
                dropped = self._batcher.offer(job, self._clock.monotonic_ns())
                # The first job sets the deadline and a full batch ends the wait; those between
                # change nothing for the threads.
                if len(self._batcher) == 1 or len(self._batcher) >= self._batcher.max_batch:
                    self._changed.notify_all()
                if dropped is None:
                    return
                lost, reason = dropped, DropReason.OVERLOAD
        self._drop(lost, reason)

    def drain(self, timeout_s: float) -> bool:
        """Run what waits without waiting for company; whether all was answered in time.

        Jobs may still be submitted meanwhile and are drained too.
        """
        with self._changed:
            self._batcher.flushing = True
            self._changed.notify_all()
            done = self._changed.wait_for(self._is_idle, timeout_s)
            self._batcher.flushing = False
        return done

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the threads after their current batches; whether they ended in time.

        What still waits, and a batch that does not end in time, is dropped as ``stopped``.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        ended = not any(thread.is_alive() for thread in self._threads)
        with self._changed:
            lost = [job for jobs in self._unanswered for job in jobs] + self._batcher.clear()
            self._unanswered = [[] for _ in self._models]
            self._changed.notify_all()
        for job in lost:
            self._drop(job, DropReason.STOPPED)
        return ended

    def _is_idle(self) -> bool:
        return not self._busy and not len(self._batcher)

    def _loop(self, number: int) -> None:
        name_thread("serd-inference")
        model = self._models[number]
        while (jobs := self._next_batch(number)) is not None:
            results, failed = self._score(model, jobs)
            with self._changed:
                if not self._unanswered[number]:
                    # `stop` gave up on this batch and has answered for it.
                    return
                self._unanswered[number] = []
                self._counts["batches"] += 1
                self._counts["segments_scored"] += len(results)
            if results:
                self._call(partial(self._on_results, results))
            for job in failed:
                self._drop(job, DropReason.MODEL_ERROR)
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _next_batch(self, number: int) -> list[SegmentJob] | None:
        with self._changed:
            while not self._stopping:
                now_ns = self._clock.monotonic_ns()
                if jobs := self._batcher.take(now_ns):
                    self._busy += 1
                    self._unanswered[number] = jobs
                    return jobs
                deadline_ns = self._batcher.deadline_ns()
                wait_s = None if deadline_ns is None else max(0, deadline_ns - now_ns) / 1e9
                self._changed.wait(wait_s)
            return None

    def _score(
        self, model: Scorer, jobs: list[SegmentJob]
    ) -> tuple[list[Result], list[SegmentJob]]:
        started_ns = self._clock.monotonic_ns()
        try:
            scores = model.score(jobs)
        except Exception as error:
            self._note_failure(error)
            return ([], jobs) if len(jobs) == 1 else self._score_alone(model, jobs)
        self._failing = False
        finished_ns = self._clock.monotonic_ns()
        results = [
            Result(job, row, started_ns, finished_ns, len(jobs))
            for job, row in zip(jobs, scores, strict=True)
        ]
        return results, []

    def _score_alone(
        self, model: Scorer, jobs: Sequence[SegmentJob]
    ) -> tuple[list[Result], list[SegmentJob]]:
        results: list[Result] = []
        failed: list[SegmentJob] = []
        for job in jobs:
            started_ns = self._clock.monotonic_ns()
            try:
                scores = model.score([job])
            except Exception as error:
                self._note_failure(error)
                failed.append(job)
            else:
                finished_ns = self._clock.monotonic_ns()
                results.append(Result(job, scores[0], started_ns, finished_ns, 1))
        return results, failed

    def _note_failure(self, error: Exception) -> None:
        with self._changed:
            self._counts["inference_errors"] += 1
        # Once until a batch succeeds again: a broken model would flood the log.
        if not self._failing:
            self._failing = True
            _log.error("inference failed", error=str(error), kind=type(error).__name__)

    def _drop(self, job: SegmentJob, reason: DropReason) -> None:
        with self._changed:
            self._counts[f"segments_dropped_{reason}"] += 1
        self._call(partial(self._on_dropped, job, reason))

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            with self._changed:
                self._counts["callback_errors"] += 1
            _log.exception("a callback of the inference worker failed")
