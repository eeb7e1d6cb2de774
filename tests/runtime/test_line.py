from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serd.rows import RowPool, StreamInfo, Timeline
from serd.runtime.line import (
    Level,
    Line,
    ModelFacts,
    Span,
    Utterance,
    scores_of,
    utterance_event,
)
from serd.segmenter import Offset
from serd.types import Role

MODEL = ModelFacts("test-1@sha256:0", ("calm", "sad"), 0.6)
INFO = StreamInfo("call", "tap", 0, 1, 8000, "mulaw", Role.CUSTOMER, "c-1", {"queue": "sales"})


def test_level_of_known_signals() -> None:
    full = np.tile(np.array([32767, -32768], np.int16), 100)
    assert Level.of(full) == Level(0.0, 1.0)
    tone = np.round(16384 * np.sin(np.arange(8000) * 2 * np.pi * 100 / 8000)).astype(np.int16)
    assert Level.of(tone).rms_dbfs == pytest.approx(-9.03, abs=0.01)
    assert Level.of(np.zeros(100, np.int16)) == Level(-120.0, 0.0)
    assert Level.of(np.zeros(0, np.int16)) == Level(-120.0, 0.0)


@given(hnp.arrays(np.float64, 8, elements=st.floats(0, 1)))
def test_rounded_scores_sum_to_one(raw: np.ndarray) -> None:
    if raw.sum() < 1e-6:
        return
    probabilities = (raw / raw.sum()).astype(np.float32)
    scores = scores_of(tuple("abcdefgh"), probabilities)
    assert sum(scores.values()) == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(list(scores.values()), probabilities, atol=1e-5)


def test_an_utterance_is_weighted_by_the_duration_of_its_segments() -> None:
    utterance = Utterance(0)
    level = Level(-20.0, 0.0)
    utterance.add(Span(0, 24_000, 8000, 0, 0.0), {"calm": 1.0, "sad": 0.0}, level)
    utterance.add(Span(0, 8_000, 8000, 0, 0.0), {"calm": 0.0, "sad": 1.0}, level)
    offset = Offset(0, 4, 0, 32_000, "silence", 2, 0.9, 33_000)
    span = Span(0, 32_000, 8000, 4 * 10**9, 0.0)
    event = utterance_event(INFO, span, utterance, offset, MODEL, 12.0)
    assert event.scores == {"calm": 0.75, "sad": 0.25}
    assert (event.label, event.confidence, event.abstained) == ("calm", 0.75, False)
    assert (event.segments, event.segments_lost, event.level_dbfs) == (2, 0, -20.0)
    assert (event.call_id, event.role, event.labels) == ("c-1", Role.CUSTOMER, {"queue": "sales"})


def test_an_utterance_without_a_judged_segment_says_nothing() -> None:
    utterance = Utterance(0, lost=1)
    offset = Offset(0, 0, 0, 8000, "silence", 1, 0.9, 9000)
    event = utterance_event(INFO, Span(0, 8000, 8000, 0, 0.0), utterance, offset, MODEL, 1.0)
    assert (event.label, event.scores, event.confidence) == (None, {}, 0.0)
    assert event.abstained
    assert event.segments_lost == 1


def test_lost_audio_is_attributed_to_the_spans_it_lies_in() -> None:
    pool = RowPool(8000, 1, 8000)
    pool.anchor(0, 0, 10**18)
    line = Line(0, pool, 0, INFO, Timeline(0, 1000, 8000, 8000))
    line.lost(100, 180)
    line.lost(400, 480)
    assert line.span(0, 8000).lost_ms == 20.0
    assert line.span(140, 440).lost_ms == 10.0
    assert line.span(180, 400).lost_ms == 0.0
    line.forget_losses(180)
    assert line.span(0, 8000).lost_ms == 10.0
    span = line.span(0, 8000)
    assert (span.start, span.end, span.end_captured_ns) == (1000, 9000, 10**18 + 10**9)
