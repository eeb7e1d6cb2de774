"""A model on trial: it hears the segments that the model in use hears, and never gets in its way.

Three things keep it apart. Its queue is its own, short, and drops the oldest. It begins a batch,
of a few segments, only while the model in use has nothing to do. Its events are left out while
others wait to be published. What it misses is counted; a busy daemon gives it few segments.

It has no lower priority with the system's scheduler: a thread that is kept waiting for a processor
while it holds the interpreter lock keeps all others waiting too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from serd.clock import Clock
from serd.inference.model import EmotionModel
from serd.inference.worker import (
    DropReason,
    InferenceWorker,
    Result,
    SegmentJob,
    WorkerOptions,
)
from serd.protocol.events import Event
from serd.runtime.judge import latency_of, scored_rows
from serd.runtime.line import ModelFacts, SegmentContext, facts_of, shadow_event

QUEUE_SEGMENTS = 64
# The model in use may wait for the processor, or the device, as long as such a batch takes.
_MAX_BATCH = 4
_STOP_S = 2.0
_GAUGES = ("queue_segments", "queue_peak_segments")


class Shadow:
    """Scores segments with a model on trial and tells the results as `shadow` events.

    Parameters
    ----------
    first
        The worker of the model in use.
    emit
        Takes the events.
    clock
        Monotonic time of the results.
    crowded
        Whether other events are waiting, so that these had better not come.

    Attributes
    ----------
    model
        The one on trial, None while there is none.
    """

    def __init__(
        self,
        first: InferenceWorker,
        emit: Callable[[Event], None],
        clock: Clock,
        crowded: Callable[[], bool],
    ) -> None:
        self._first = first
        self._emit = emit
        self._clock = clock
        self._crowded = crowded
        self._worker: InferenceWorker | None = None
        self._past: Counter[str] = Counter()
        self._skipped = 0
        self.model: EmotionModel | None = None

    def start(self, model: EmotionModel) -> None:
        """Try this model, in place of one that is on trial already."""
        self.stop()
        # Not the daemon's pulse: a shadow that hangs is no reason to start the daemon anew.
        worker = InferenceWorker(
            [model],
            WorkerOptions(QUEUE_SEGMENTS, _MAX_BATCH, 0.0),
            self._scored,
            _forget,
            self._clock,
            model=facts_of(model),
            gives_way_to=self._first,
            name="serd-shadow",
        )
        worker.start()
        self.model, self._worker = model, worker

    def submit(self, job: SegmentJob) -> None:
        """Queue a segment. Any thread; never waits for the model."""
        worker = self._worker
        if worker is not None:
            worker.submit(job)

    def stop(self) -> None:
        """End the trial; what waits is not scored any more. A model that hangs is left behind."""
        worker, self._worker, self.model = self._worker, None, None
        if worker is not None:
            worker.stop(_STOP_S)
            counts = worker.counts()
            self._past.update({name: n for name, n in counts.items() if name not in _GAUGES})

    def counts(self) -> dict[str, int]:
        """Counters over all trials, and the gauges ``running`` and ``queue_segments``."""
        worker = self._worker
        now = {} if worker is None else worker.counts()
        return {
            "running": int(worker is not None),
            "events_skipped": self._skipped,
            **{name: now.get(name, 0) + self._past[name] for name in {**self._past, **now}},
        }

    def _scored(self, results: list[Result]) -> None:
        model: ModelFacts = results[0].model
        for result, scored in zip(results, scored_rows(results), strict=True):
            if self._crowded():
                self._skipped += 1
                continue
            context: SegmentContext = result.job.context
            latency = latency_of(result, self._clock.monotonic_ns())
            self._emit(shadow_event(context, model, scored, latency))


def _forget(_job: SegmentJob, _reason: DropReason) -> None:
    """The worker has counted it; nobody waits for a shadow's answer."""
