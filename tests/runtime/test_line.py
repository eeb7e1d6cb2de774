from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serd.rows import RowPool, StreamInfo, Timeline
from serd.runtime.level import Level
from serd.runtime.line import (
    Line,
    ModelFacts,
    Scored,
    Span,
    Utterance,
    rounded_scores,
    utterance_event,
)
from serd.segmenter import Offset
from serd.types import Float32Array, Role

MODEL = ModelFacts("test-1@sha256:0", ("calm", "sad"), 0.6)
INFO = StreamInfo("call", "tap", 0, 1, 8000, "mulaw", Role.CUSTOMER, "c-1", {"queue": "sales"})


def test_level_of_known_signals() -> None:
    full = np.tile(np.array([32767, -32768], np.int16), 100)
    assert Level.of(full) == Level(0.0, 1.0)
    tone = np.round(16384 * np.sin(np.arange(8000) * 2 * np.pi * 100 / 8000)).astype(np.int16)
    assert Level.of(tone).rms_dbfs == pytest.approx(-9.03, abs=0.01)
    assert Level.of(np.zeros(100, np.int16)) == Level(-120.0, 0.0)
    assert Level.of(np.zeros(0, np.int16)) == Level(-120.0, 0.0)


@pytest.mark.parametrize("samples", [1, 2, 799, 24_000])
def test_every_sample_counts_in_the_level(samples: int) -> None:
    audio = np.arange(samples).astype(np.int16) % 4000 + 1000
    power = np.mean((audio / 32768.0) ** 2)
    assert Level.of(audio).rms_dbfs == pytest.approx(10 * np.log10(power), abs=0.006)
    audio[-1] = -32767
    assert Level.of(audio).clipped_ratio == round(1 / samples, 6)


probabilities = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 5), st.just(8)), elements=st.floats(0.001, 1)
).map(lambda raw: (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32))


@given(probabilities)
def test_rounded_scores_sum_to_one_and_name_the_highest(rows: Float32Array) -> None:
    labels = tuple("abcdefgh")
    for row, scored in zip(rows, rounded_scores(labels, rows), strict=True):
        assert tuple(scored.scores) == labels
        assert sum(scored.scores.values()) == pytest.approx(1, abs=1e-9)
        np.testing.assert_allclose(list(scored.scores.values()), row, atol=1e-5)
        assert scored.confidence == scored.scores[scored.label] == max(scored.scores.values())


@given(probabilities)
def test_scores_have_six_places_and_only_the_highest_takes_what_is_left(
    rows: Float32Array,
) -> None:
    for row, scored in zip(rows, rounded_scores(tuple("abcdefgh"), rows), strict=True):
        exact = [round(score, 6) for score in row.tolist()]
        told = list(scored.scores.values())
        assert [round(score, 6) for score in told] == told
        assert sum(a != b for a, b in zip(exact, told, strict=True)) <= 1
        top = int(np.argmax(exact))
        assert told[top] == round(1.0 - sum(exact[:top] + exact[top + 1 :]), 6)


def test_scores_of_a_row_do_not_depend_on_the_others() -> None:
    rows = np.array([[0.2, 0.8], [0.7, 0.3], [0.5, 0.5]], np.float32)
    alone = [rounded_scores(("calm", "sad"), row[None])[0] for row in rows]
    assert rounded_scores(("calm", "sad"), rows) == alone
    assert [scored.label for scored in alone] == ["sad", "calm", "calm"]
    assert alone[0] == Scored("sad", 0.8, {"calm": 0.2, "sad": 0.8})


def test_an_utterance_is_weighted_by_the_duration_of_its_segments() -> None:
    utterance = Utterance(0)
    level = Level(-20.0, 0.0)
    utterance.add(Span(0, 24_000, 8000, 0), {"calm": 1.0, "sad": 0.0}, level, MODEL)
    utterance.add(Span(0, 8_000, 8000, 0), {"calm": 0.0, "sad": 1.0}, level, MODEL)
    offset = Offset(0, 4, 0, 32_000, "silence", 2, 0.9, 33_000)
    span = Span(0, 32_000, 8000, 4 * 10**9)
    event = utterance_event(INFO, span, utterance, offset, MODEL, 12.0)
    assert event.scores == {"calm": 0.75, "sad": 0.25}
    assert (event.label, event.confidence, event.abstained) == ("calm", 0.75, False)
    assert (event.segments, event.segments_lost, event.level_dbfs) == (2, 0, -20.0)
    assert (event.call_id, event.role, event.labels) == ("c-1", Role.CUSTOMER, {"queue": "sales"})


def test_an_utterance_without_a_judged_segment_says_nothing() -> None:
    utterance = Utterance(0, lost=1)
    offset = Offset(0, 0, 0, 8000, "silence", 1, 0.9, 9000)
    event = utterance_event(INFO, Span(0, 8000, 8000, 0), utterance, offset, MODEL, 1.0)
    assert (event.label, event.scores, event.confidence) == (None, {}, 0.0)
    assert event.abstained
    assert event.segments_lost == 1


def test_an_utterance_of_two_models_is_that_of_the_later_one() -> None:
    utterance = Utterance(0)
    later = ModelFacts("test-2@sha256:1", ("low", "high"), 0.6)
    utterance.add(Span(0, 24_000, 8000, 0), {"calm": 1.0, "sad": 0.0}, Level(-10, 0.5), MODEL)
    utterance.add(Span(0, 8_000, 8000, 0), {"low": 0.25, "high": 0.75}, Level(-10, 0.5), later)
    offset = Offset(0, 4, 0, 32_000, "silence", 2, 0.9, 33_000)
    # The one in use by now may be a third.
    event = utterance_event(INFO, Span(0, 1, 8000, 0), utterance, offset, MODEL, 12.0)
    assert (event.model, event.segments, event.segments_lost) == (later.identity, 1, 0)
    assert event.scores == {"low": 0.25, "high": 0.75}
    # How loud it was does not depend on who judged it.
    assert (event.level_dbfs, event.clipped_ratio) == (-10.0, 0.5)


def _line(native_hz: int = 8000, source_hz: int = 8000) -> Line:
    pool = RowPool(native_hz, 1, 8000)
    pool.anchor(0, 0, 10**18)
    info = replace(INFO, sample_rate_hz=source_hz)
    return Line(0, pool, 0, info, Timeline(0, 1000, native_hz, source_hz))


def test_lost_audio_is_attributed_to_the_spans_it_lies_in() -> None:
    line = _line()
    line.losses.note(1100, 1180)
    line.losses.note(1400, 1480)
    assert line.span(0, 8000).lost_ms == 20.0
    assert line.span(140, 440).lost == ((1140, 1180), (1400, 1440))
    assert line.span(140, 440).lost_ms == 10.0
    assert line.span(180, 400).lost_ms == 0.0
    assert list(line.unlost(140, 600)) == [(1180, 1400), (1480, 1600)]
    line.forget_losses(180)
    assert line.span(0, 8000).lost_ms == 10.0
    span = line.span(0, 8000)
    assert (span.start, span.end, span.end_captured_ns) == (1000, 9000, 10**18 + 10**9)


@pytest.mark.parametrize("samples", range(1, 200, 7))
def test_resampled_audio_ends_where_the_tap_ended_it(samples: int) -> None:
    line = _line(16_000, 44_100)
    ring = (samples * 16_000 + 22_050) // 44_100
    line.end_run(ring, 1000 + samples)
    assert line.span(0, ring).end == 1000 + samples
    assert all(line.source_index(index) <= 1000 + samples for index in range(ring + 2))
    line.begin_run(Timeline(ring, 9000, 16_000, 44_100))
    assert line.source_index(ring + 160) == 9441


def test_a_segment_without_an_answer_tells_what_no_gap_has_told() -> None:
    utterance = Utterance(0)
    assert utterance.miss(Span(1000, 4000, 8000, 0)) == [(1000, 4000)]
    lost = ((3800, 4200), (4500, 4600))
    assert utterance.miss(Span(2000, 5000, 8000, 0, lost)) == [(4200, 4500), (4600, 5000)]
    assert utterance.miss(Span(3000, 5100, 8000, 0, ((5000, 5100),))) == [(5100, 5100)]
    assert utterance.lost == 3
