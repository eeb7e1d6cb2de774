"""The inference thread: takes segments, batches them, scores them, hands back results."""

from __future__ import annotations

import threading
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
    """A thread that scores segments in batches.

    Every submitted job is answered exactly once: in a list given to `on_results`, or by
    `on_dropped` with a `DropReason`. Jobs of one batch come back in the order of submission, and
    batches follow each other in that order too.

    Parameters
    ----------
    model
        Used by the worker's thread alone.
    options
        Bounds of the queue and the batches. A full queue drops its oldest segment. Batches are
        no larger than the model has use for, so that results leave as early as they can.
    clock
        Monotonic time of waits and results.
    on_results
        Called on the worker's thread.
    on_dropped
        Called on the worker's thread for ``model_error``, on the submitting thread for
        ``overload`` and ``stopped`` of a late `submit`, and on the thread that calls `stop`.

    Notes
    -----
    A batch that fails is tried again job by job, so that one segment which the model cannot take
    costs no other stream its result.
    """

    def __init__(
        self,
        model: Scorer,
        options: WorkerOptions,
        on_results: Callable[[list[Result]], None],
        on_dropped: Callable[[SegmentJob, DropReason], None],
        clock: Clock | None = None,
    ) -> None:
        self._model = model
        self._on_results = on_results
        self._on_dropped = on_dropped
        self._clock = clock or SystemClock()
        self._batcher: Batcher[SegmentJob] = Batcher(
            options.queue_segments,
            min(options.max_batch, model.largest_batch),
            round(options.max_wait_ms * 1e6),
        )
        # Guards everything below and the batcher; signalled when any of it changes.
        self._changed = threading.Condition()
        self._busy = False
        self._unanswered: list[SegmentJob] = []
        self._stopping = False
        self._failing = False
        self._thread: threading.Thread | None = None
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
        """CPU time of the thread inside the model's runtime; any thread may ask, without a lock."""
        return self._model.compute_ns

    def oldest_wait_ns(self) -> int:
        """How long the oldest segment that no batch has taken yet has waited; 0 if there is none.

        Cheap: takes no lock.
        """
        oldest_ns = self._batcher.oldest_ns()
        return 0 if oldest_ns is None else max(0, self._clock.monotonic_ns() - oldest_ns)

    def counts(self) -> dict[str, int]:
        """Monotonic counters, and the gauges ``queue_segments`` and ``queue_peak_segments``."""
        with self._changed:
            return {
                **self._counts,
                "queue_segments": len(self._batcher),
                "queue_peak_segments": self._batcher.peak,
            }

    def start(self) -> None:
        """Start the thread. Jobs submitted before have waited for it."""
        if self._thread is not None:
            raise RuntimeError("the inference worker was started already")
        # A daemon thread: a model that never returns must not keep the process alive.
        self._thread = threading.Thread(target=self._loop, name="serd-inference", daemon=True)
        self._thread.start()

    def submit(self, job: SegmentJob) -> None:
        """Queue a job. Any thread; never waits for the model."""
        with self._changed:
            self._counts["segments_submitted"] += 1
            if self._stopping:
                lost, reason = job, DropReason.STOPPED
            else:
                dropped = self._batcher.offer(job, self._clock.monotonic_ns())
                # The first job sets the deadline and a full batch ends the wait; those between
                # change nothing for the thread.
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
        """End the thread after its current batch; whether it ended in time.

        What still waits, and a batch that does not end in time, is dropped as ``stopped``.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        ended = True
        if self._thread is not None:
            self._thread.join(timeout_s)
            ended = not self._thread.is_alive()
        with self._changed:
            lost = [*self._unanswered, *self._batcher.clear()]
            self._unanswered = []
            self._changed.notify_all()
        for job in lost:
            self._drop(job, DropReason.STOPPED)
        return ended

    def _is_idle(self) -> bool:
        return not self._busy and not len(self._batcher)

    def _loop(self) -> None:
        name_thread("serd-inference")
        while (jobs := self._next_batch()) is not None:
            results, failed = self._score(jobs)
            with self._changed:
                if not self._unanswered:
                    # `stop` gave up on this batch and has answered for it.
                    return
                self._unanswered = []
                self._counts["batches"] += 1
                self._counts["segments_scored"] += len(results)
            if results:
                self._call(partial(self._on_results, results))
            for job in failed:
                self._drop(job, DropReason.MODEL_ERROR)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next_batch(self) -> list[SegmentJob] | None:
        with self._changed:
            while not self._stopping:
                now_ns = self._clock.monotonic_ns()
                if jobs := self._batcher.take(now_ns):
                    self._busy = True
                    self._unanswered = jobs
                    return jobs
                deadline_ns = self._batcher.deadline_ns()
                wait_s = None if deadline_ns is None else max(0, deadline_ns - now_ns) / 1e9
                self._changed.wait(wait_s)
            return None

    def _score(self, jobs: list[SegmentJob]) -> tuple[list[Result], list[SegmentJob]]:
        started_ns = self._clock.monotonic_ns()
        try:
            scores = self._model.score(jobs)
        except Exception as error:
            self._note_failure(error)
            return ([], jobs) if len(jobs) == 1 else self._score_alone(jobs)
        self._failing = False
        finished_ns = self._clock.monotonic_ns()
        results = [
            Result(job, row, started_ns, finished_ns, len(jobs))
            for job, row in zip(jobs, scores, strict=True)
        ]
        return results, []

    def _score_alone(self, jobs: Sequence[SegmentJob]) -> tuple[list[Result], list[SegmentJob]]:
        results: list[Result] = []
        failed: list[SegmentJob] = []
        for job in jobs:
            started_ns = self._clock.monotonic_ns()
            try:
                scores = self._model.score([job])
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
