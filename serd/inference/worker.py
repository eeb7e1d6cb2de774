"""The inference threads: take segments, batch them, score them, hand back results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import structlog

from serd.clock import Clock, SystemClock
from serd.errors import SerdError
from serd.inference.batcher import Batcher
from serd.inference.jobs import DropReason, Result, Scorer, SegmentJob
from serd.pulse import Pulse, StagePulse
from serd.threads import name_thread

__all__ = [
    "DropReason",
    "InferenceWorker",
    "Result",
    "Scorer",
    "SegmentJob",
    "WorkerOptions",
]

_log = structlog.get_logger(__name__)

# How soon a worker that gives way looks again whether the other one rests.
_LOOK_AGAIN_S = 0.005


@dataclass(frozen=True)
class WorkerOptions:
    """Bounds of the worker's queue, as in ``[inference]`` of the configuration."""

    queue_segments: int = 256
    max_batch: int = 32
    max_wait_ms: float = 1.0


class _Batch(NamedTuple):
    jobs: list[SegmentJob]
    scorer: Scorer
    model: Any


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
        ``overload`` and ``stopped`` of a late `submit`, and on the thread that calls `withdraw`
        or `stop`.
    pulse
        Is told that the threads move, as stages ``inference-0`` and so on.
    model
        Anything that is to be found again in every result of these models: what they are.
    gives_way_to
        A worker that comes first: no batch begins here while that one has anything to do. Without
        a lock, so that neither ever waits for the other.
    name
        Of the threads.

    Notes
    -----
    A thread that hangs in its model keeps its own batch and nothing else: the others go on, its
    stage of `pulse` stands still, and `stop` answers for the batch.

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
        pulse: Pulse | None = None,
        model: Any = None,
        gives_way_to: InferenceWorker | None = None,
        name: str = "serd-inference",
    ) -> None:
        self._pulse = pulse or Pulse()
        self._model = model
        self._gives_way_to = gives_way_to
        self._name = name
        self._largest = options.max_batch
        self._on_results = on_results
        self._on_dropped = on_dropped
        self._clock = clock or SystemClock()
        self._batcher: Batcher[SegmentJob] = Batcher(
            options.queue_segments, options.max_batch, round(options.max_wait_ms * 1e6)
        )
        # Guards everything below and the batcher; signalled when any of it changes.
        self._changed = threading.Condition()
        self._scorers: list[Scorer] = []
        self._take_up(models)
        self._busy = 0
        # What each thread has taken and not answered yet.
        self._unanswered: list[list[SegmentJob]] = [[] for _ in models]
        self._compute_ns = [0] * len(models)
        self._stopping = False
        self._failing = False
        self._threads: list[threading.Thread] = []
        self._batch_sizes = [0] * (options.max_batch + 1)
        self._counts = dict.fromkeys(
            (
                "segments_submitted",
                "segments_scored",
                "segments_dropped_overload",
                "segments_dropped_model_error",
                "segments_dropped_stopped",
                "batches",
                "inference_errors",
                "inference_not_finite",
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
    def resting(self) -> bool:
        """`idle` as it was a moment ago. Cheap: takes no lock."""
        return self._is_idle()

    @property
    def queued(self) -> int:
        """Segments that wait, for submitters who can hold back. Cheap: takes no lock."""
        return len(self._batcher)

    @property
    def compute_ns(self) -> int:
        """CPU time of the threads inside the runtime; any thread may ask, without a lock."""
        return sum(self._compute_ns)

    @property
    def submitted(self) -> int:
        """Segments submitted so far. Cheap: takes no lock."""
        return self._counts["segments_submitted"]

    @property
    def scored(self) -> int:
        """Segments scored so far. Cheap: takes no lock."""
        return self._counts["segments_scored"]

    def counts(self) -> dict[str, int]:
        """Monotonic counters, and the gauges ``queue_segments`` and ``queue_peak_segments``."""
        with self._changed:
            return {
                **self._counts,
                "queue_segments": len(self._batcher),
                "queue_peak_segments": self._batcher.peak,
            }

    def batch_sizes(self) -> list[int]:
        """How many batches there were of each size: entry `n` counts those of `n` jobs."""
        with self._changed:
            return self._batch_sizes.copy()

    def start(self) -> None:
        """Start the threads. Jobs submitted before have waited for them."""
        if self._threads:
            raise RuntimeError("the inference worker was started already")
        # Daemon threads: a model that never returns must not keep the process alive.
        self._threads = [
            threading.Thread(target=self._loop, args=(number,), name=self._name, daemon=True)
            for number in range(len(self._scorers))
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

    def withdraw(self, unwanted: Callable[[SegmentJob], bool]) -> None:
        """Drop those jobs that still wait and are unwanted, as ``overload``. Any thread."""
        with self._changed:
            lost = self._batcher.withdraw(unwanted)
            # Whoever waits for the queue to empty.
            self._changed.notify_all()
        for job in lost:
            self._drop(job, DropReason.OVERLOAD)

    def swap(self, models: Sequence[Scorer], model: Any = None) -> None:
        """Score with other models from the next batch on. Any thread; does not wait.

        Batches begin in the order of submission, so that there is one segment before which all
        are scored by the old models, and from which on all are by the new ones. A batch that is
        running, and a thread that hangs, keep theirs.

        Parameters
        ----------
        models
            As many as there are threads.
        model
            As for the worker itself.
        """
        with self._changed:
            if len(models) != len(self._scorers):
                raise ValueError(f"{len(models)} models for {len(self._scorers)} threads")
            self._model = model
            self._take_up(models)
            self._failing = False
            self._changed.notify_all()

    def _take_up(self, models: Sequence[Scorer]) -> None:
        self._scorers = list(models)
        largest = min(self._largest, *(model.largest_batch for model in models))
        self._batcher.max_batch = min(largest, self._batcher.capacity)

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
            self._unanswered = [[] for _ in self._scorers]
            self._changed.notify_all()
        for job in lost:
            self._drop(job, DropReason.STOPPED)
        return ended

    def _is_idle(self) -> bool:
        return not self._busy and not len(self._batcher)

    def _loop(self, number: int) -> None:
        name_thread(self._name)
        pulse = self._pulse.stage(f"inference-{number}", owed=lambda: len(self._batcher) > 0)
        while self._round(number, pulse):
            pass
        self._pulse.end(pulse)

    def _round(self, number: int, pulse: StagePulse) -> bool:
        # A round of its own, so that no name here keeps a model that was swapped out.
        batch = self._next_batch(number, pulse)
        if batch is None:
            return False
        before_ns = batch.scorer.compute_ns
        results, failed = self._score(batch, pulse)
        with self._changed:
            if not self._unanswered[number]:
                # `stop` gave up on this batch and has answered for it.
                return False
            self._unanswered[number] = []
            self._compute_ns[number] += batch.scorer.compute_ns - before_ns
            self._counts["batches"] += 1
            self._batch_sizes[len(batch.jobs)] += 1
            self._counts["segments_scored"] += len(results)
        if results:
            self._call(partial(self._on_results, results))
        for job in failed:
            self._drop(job, DropReason.MODEL_ERROR)
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()
        return True

    def _next_batch(self, number: int, pulse: StagePulse) -> _Batch | None:
        with self._changed:
            while not self._stopping:
                now_ns = self._clock.monotonic_ns()
                if self._must_wait():
                    pulse.idle()
                    self._changed.wait(_LOOK_AGAIN_S)
                    continue
                if jobs := self._batcher.take(now_ns):
                    pulse.beat()
                    self._busy += 1
                    self._unanswered[number] = jobs
                    return _Batch(jobs, self._scorers[number], self._model)
                deadline_ns = self._batcher.deadline_ns()
                wait_s = None if deadline_ns is None else max(0, deadline_ns - now_ns) / 1e9
                pulse.idle()
                self._changed.wait(wait_s)
            return None

    def _must_wait(self) -> bool:
        first = self._gives_way_to
        return first is not None and len(self._batcher) > 0 and not first.resting

    def _score(self, batch: _Batch, pulse: StagePulse) -> tuple[list[Result], list[SegmentJob]]:
        jobs, scorer, model = batch
        started_ns = self._clock.monotonic_ns()
        try:
            scores = scorer.score(jobs)
        except Exception as error:
            self._note_failure(error)
            return ([], jobs) if len(jobs) == 1 else self._score_alone(batch, pulse)
        self._failing = False
        finished_ns = self._clock.monotonic_ns()
        results = [
            Result(job, row, started_ns, finished_ns, len(jobs), model)
            for job, row in zip(jobs, scores, strict=True)
        ]
        return results, []

    def _score_alone(
        self, batch: _Batch, pulse: StagePulse
    ) -> tuple[list[Result], list[SegmentJob]]:
        results: list[Result] = []
        failed: list[SegmentJob] = []
        for job in batch.jobs:
            pulse.beat()
            started_ns = self._clock.monotonic_ns()
            try:
                scores = batch.scorer.score([job])
            except Exception as error:
                self._note_failure(error)
                failed.append(job)
            else:
                finished_ns = self._clock.monotonic_ns()
                results.append(Result(job, scores[0], started_ns, finished_ns, 1, batch.model))
        return results, failed

    def _note_failure(self, error: Exception) -> None:
        with self._changed:
            self._counts["inference_errors"] += 1
            if isinstance(error, SerdError) and error.code == "model_not_finite":
                self._counts["inference_not_finite"] += 1
        # Once until a batch succeeds again: a broken model would flood the log.
        if not self._failing:
            self._failing = True
            _log.error("inference.failed", error=str(error), kind=type(error).__name__)

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
            _log.exception("inference.callback_failed")
