"""Answers of the inference stage become events in their stream's order."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from serd.inference.worker import DropReason, Result, SegmentJob
from serd.protocol.events import EmotionEvent, Event, GapEvent
from serd.rows import StreamInfo
from serd.runtime.assembler import Assembler
from serd.runtime.judge import Judge
from serd.runtime.line import ModelFacts, SegmentContext, Span, Utterance
from serd.segmenter import Segment
from serd.types import Role
from tests.fakes import FakeClock

MODEL = ModelFacts("test-1@sha256:0", ("calm", "sad"), 0.6)
INFO = StreamInfo("call", "tap", 0, 1, 8000, "mulaw", Role.CUSTOMER)


class Bench:
    """A judge, and what it told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.progress = 0
        self.clock = FakeClock(monotonic_ns=5_000_000)
        self.assembler = Assembler(self.events.append)
        self.judge = Judge(self.assembler, self.clock, self._progressed)

    def _progressed(self) -> None:
        self.progress += 1

    def job(self, index: int, utterance: Utterance, line: int = 0) -> SegmentJob:
        segment = Segment(0, utterance.number, index, 0, 800, False, 1.0, 800)
        context = SegmentContext(
            info=INFO,
            place=self.assembler.reserve(line),
            utterance=utterance,
            instruction=segment,
            span=Span(0, 800, 8000, 10**18),
            padded=True,
            arrived_ns=1_000_000,
        )
        return SegmentJob(np.full(800, 3277, np.int16), 8000, 2_000_000, context)


def _result(job: SegmentJob, calm: float) -> Result:
    return Result(job, np.array([calm, 1 - calm], np.float32), 2_500_000, 4_000_000, 1, MODEL)


def test_a_batch_becomes_emotion_events_and_adds_to_its_utterances() -> None:
    bench = Bench()
    utterance = Utterance(4)
    jobs = [bench.job(0, utterance), bench.job(1, utterance)]
    bench.judge.results([_result(jobs[0], 0.75), _result(jobs[1], 0.5)])
    assert bench.progress == 1
    first, second = bench.events
    assert isinstance(first, EmotionEvent)
    assert isinstance(second, EmotionEvent)
    assert (first.utterance, first.index, second.index) == (4, 0, 1)
    assert (first.label, first.confidence, first.abstained) == ("calm", 0.75, False)
    assert first.scores == {"calm": 0.75, "sad": 0.25}
    assert (second.label, second.abstained) == ("calm", True)
    assert first.level_dbfs == -20.0
    latency = first.latency_ms
    assert (latency.wait, latency.inference, latency.total) == (0.5, 1.5, 4.0)
    assert utterance.segments == 2
    assert utterance.scores["sad"] / utterance.weight == pytest.approx(0.375)


def test_a_dropped_segment_leaves_a_gap_in_its_place() -> None:
    bench = Bench()
    utterance = Utterance(0)
    first, second = bench.job(0, utterance), bench.job(1, utterance)
    bench.judge.results([_result(second, 0.9)])
    assert bench.events == []
    bench.judge.dropped(first, DropReason.OVERLOAD)
    gap, emotion = bench.events
    assert isinstance(gap, GapEvent)
    assert (gap.reason, gap.start_sample, gap.end_sample) == ("overload", 0, 800)
    assert isinstance(emotion, EmotionEvent)
    assert (utterance.segments, utterance.lost) == (1, 1)


def test_segments_that_overlap_tell_nothing_twice() -> None:
    bench = Bench()
    utterance = Utterance(0)
    first, second = bench.job(0, utterance), bench.job(1, utterance)
    later = Span(500, 1300, 8000, 10**18, ((900, 1000),))
    second = replace(second, context=second.context._replace(span=later))
    # Told in their order, not in that of the answers.
    bench.judge.dropped(second, DropReason.STOPPED)
    bench.judge.dropped(first, DropReason.OVERLOAD)
    gaps = [event for event in bench.events if isinstance(event, GapEvent)]
    assert [(gap.reason, gap.start_sample, gap.end_sample, gap.lost_ms) for gap in gaps] == [
        ("overload", 0, 800, 100.0),
        ("stopped", 800, 900, 12.5),
        ("stopped", 1000, 1300, 37.5),
    ]
    assert utterance.lost == 2


def test_a_judged_segment_frees_its_audio_without_the_garbage_collector() -> None:
    bench = Bench()
    job = bench.job(0, Utterance(0))
    audio = weakref.ref(job.audio)
    gc.disable()
    try:
        bench.judge.results([_result(job, 0.5)])
        del job
        assert audio() is None
    finally:
        gc.enable()
