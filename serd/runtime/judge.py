"""From the inference stage's answers to events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from serd.clock import Clock
from serd.inference.worker import DropReason, Result, SegmentJob
from serd.protocol.events import Event, SegmentLatency
from serd.rows import Gap
from serd.runtime.assembler import Assembler
from serd.runtime.level import Level
from serd.runtime.line import (
    ModelFacts,
    Scored,
    SegmentContext,
    emotion_event,
    gap_event,
    rounded_scores,
)


class Judge:
    """Fills the places of segments with emotion events, or with the gaps they left.

    The results' own `model`, a `ModelFacts`, says what judged them: each event names the model that
    it comes from, also while models are swapped.

    Parameters
    ----------
    on_progress
        Called after every answer: the speech stage may be waiting for the queue to empty.
    """

    def __init__(
        self,
        assembler: Assembler,
        clock: Clock,
        on_progress: Callable[[], None],
    ) -> None:
        self._assembler = assembler
        self._clock = clock
        self._on_progress = on_progress

    def results(self, results: list[Result]) -> None:
        """Take the answers of one batch."""
        model: ModelFacts = results[0].model
        for result, scored in zip(results, scored_rows(results), strict=True):
            self._judged(result, scored, model)
        self._on_progress()

    def _judged(self, result: Result, scored: Scored, model: ModelFacts) -> None:
        job = result.job
        context: SegmentContext = job.context
        level = Level.of(job.audio)

        def make() -> list[Event]:
            context.utterance.add(context.span, scored.scores, level, model)
            latency = latency_of(result, self._clock.monotonic_ns())
            return [emotion_event(context, model, scored, level, latency)]

        self._assembler.fill(context.place, make)

    def dropped(self, job: SegmentJob, reason: DropReason) -> None:
        """A segment got no answer: its place tells so."""
        context: SegmentContext = job.context
        span = context.span

        def make() -> list[Event]:
            return [
                gap_event(context.info, Gap(str(reason), start, end, 0))
                for start, end in context.utterance.miss(span)
            ]

        self._assembler.fill(context.place, make)
        self._on_progress()


def scored_rows(results: Sequence[Result]) -> list[Scored]:
    """What the model made of each segment of one batch."""
    model: ModelFacts = results[0].model
    return rounded_scores(model.labels, np.stack([result.probabilities for result in results]))


def latency_of(result: Result, now_ns: int) -> SegmentLatency:
    """Where the time of a segment went, told at `now_ns`."""
    context: SegmentContext = result.job.context
    return SegmentLatency(
        wait=_ms(result.started_ns - result.job.queued_ns),
        inference=_ms(result.finished_ns - result.started_ns),
        total=_ms(now_ns - context.arrived_ns),
    )


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)
