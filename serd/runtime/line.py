"""One opening of a stream on the speech thread's side, and the events that tell of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, TypedDict

import numpy as np

from serd.inference.model import EmotionModel
from serd.protocol.events import (
    EmotionEvent,
    GapEvent,
    SegmentLatency,
    ShadowEvent,
    SpeechEvent,
    StreamEvent,
    UtteranceEvent,
    UtteranceLatency,
    utc,
)
from serd.rows import Gap, RowPool, StreamInfo, Timeline
from serd.runtime.assembler import Place
from serd.runtime.level import SILENT_DBFS, Level, dbfs
from serd.runtime.losses import Losses, Range, outside
from serd.segmenter import Offset, Segment
from serd.types import Float32Array, Role


class Span(NamedTuple):
    """A range of a stream in source samples, as events give it.

    `lost`: those parts of it that are silence in place of lost audio, and told by gaps.
    """

    start: int
    end: int
    rate_hz: int
    end_captured_ns: int
    lost: tuple[Range, ...] = ()

    @property
    def samples(self) -> int:
        """Length in source samples."""
        return self.end - self.start

    @property
    def lost_ms(self) -> float:
        """How much of it was lost."""
        return _ms(sum(end - start for start, end in self.lost), self.rate_hz)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What events say of the model."""

    identity: str
    labels: tuple[str, ...]
    abstain_below: float


def facts_of(model: EmotionModel) -> ModelFacts:
    """What events say of a model."""
    return ModelFacts(model.identity, tuple(model.labels), model.abstain_below)


@dataclass(slots=True)
class Utterance:
    """What the segments of one utterance add up to. Touched only in their line's order.

    Its result is that of one model, `model`: the one that judged the newest of its segments. Two
    models need not have the same labels, and the means of two calibrations are nobody's. Segments
    that an earlier model judged count for how loud the utterance was, and for nothing else.
    """

    number: int
    segments: int = 0
    lost: int = 0
    weight: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    heard: float = 0.0
    power: float = 0.0
    clipped: float = 0.0
    model: ModelFacts | None = None
    told_until: int = 0

    def add(self, span: Span, scores: dict[str, float], level: Level, model: ModelFacts) -> None:
        """Count a judged segment in, weighted by its duration."""
        weight = span.samples / span.rate_hz
        if model is not self.model:
            self.model = model
            self.segments, self.weight, self.scores = 0, 0.0, {}
        self.segments += 1
        self.weight += weight
        self.heard += weight
        for label, score in scores.items():
            self.scores[label] = self.scores.get(label, 0.0) + weight * score
        self.power += weight * 10 ** (level.rms_dbfs / 10)
        self.clipped += weight * level.clipped_ratio

    def miss(self, span: Span) -> list[Range]:
        """Count a segment in that got no answer; return what no gap has told of it yet.

        Segments overlap, and there may be silence in them in place of what is told as lost. What
        is left may be nothing, an empty range, or several.
        """
        self.lost += 1
        start = max(span.start, self.told_until)
        self.told_until = span.end
        return list(outside(start, span.end, span.lost)) or [(span.end, span.end)]


class SegmentContext(NamedTuple):
    """What travels with a segment through the inference queue."""

    info: StreamInfo
    place: Place
    utterance: Utterance
    instruction: Segment
    span: Span
    padded: bool
    arrived_ns: int


class Line:
    """One opening of a stream: from its `Open` to its `Close`.

    Parameters
    ----------
    key
        The stream's line in the assembler.
    """

    def __init__(
        self, key: int, pool: RowPool, row: int, info: StreamInfo, timeline: Timeline
    ) -> None:
        self.key = key
        self.info = info
        self.utterance = Utterance(0)
        self.speaking = False
        self.losses = Losses()
        self._timeline = timeline
        # Ring and source index of the end of the run of audio, once it is known.
        self._end: tuple[int, int] | None = None
        self._pool = pool
        self._row = row

    def end_run(self, ring: int, source: int) -> None:
        """The audio ends at a ring index, which is exactly this source index."""
        self._end = ring, source

    def begin_run(self, timeline: Timeline) -> None:
        """The audio goes on elsewhere."""
        self._timeline = timeline
        self._end = None

    def source_index(self, ring: int) -> int:
        """Source index of a ring index, to the nearest sample, and never behind the audio's end."""
        source = self._timeline.source_index(ring)
        if self._end is None:
            return source
        end, source_end = self._end
        return source_end if ring >= end else min(source, source_end)

    def forget_losses(self, before: int) -> None:
        """Drop notes of losses before a ring index: nothing will refer to them any more."""
        self.losses.forget(self.source_index(before))

    def unlost(self, start: int, end: int) -> Iterator[Range]:
        """Source ranges of what the tap has sent between two ring indexes."""
        first, last = self.source_index(start), self.source_index(end)
        return outside(first, last, self.losses.within(first, last))

    def span(self, start: int, end: int) -> Span:
        """A range of ring indexes in the stream's own terms."""
        first, last = self.source_index(start), self.source_index(end)
        return Span(
            start=first,
            end=last,
            rate_hz=self.info.sample_rate_hz,
            end_captured_ns=self._pool.captured_ns(self._row, end),
            lost=self.losses.within(first, last),
        )

    def stream_event(self, state: str, reason: str | None, at: int) -> StreamEvent:
        """A `stream` event at a ring index."""
        return stream_event(
            self.info,
            state,
            reason,
            self.source_index(at),
            self._pool.captured_ns(self._row, at),
        )

    def speech_event(self, state: str, reason: str | None, utterance: int, at: int) -> SpeechEvent:
        """A `speech` event at a ring index."""
        info, sample = self.info, self.source_index(at)
        return SpeechEvent(
            **_of_stream(info),
            state=state,  # type: ignore[arg-type]  # one of the literals, by its callers
            reason=reason,
            utterance=utterance,
            at_sample=sample,
            at_s=seconds(sample, info.sample_rate_hz),
            sample_rate_hz=info.sample_rate_hz,
            captured_at=utc(self._pool.captured_ns(self._row, at)),
        )

    def gap_event(self, gap: Gap) -> GapEvent:
        """A `gap` event."""
        return gap_event(self.info, gap)


class _StreamFields(TypedDict):
    stream: str
    call_id: str | None
    role: Role
    labels: dict[str, str]


def _of_stream(info: StreamInfo) -> _StreamFields:
    return {
        "stream": info.stream,
        "call_id": info.call_id,
        "role": info.role,
        "labels": dict(info.labels),
    }


class _SpanFields(TypedDict):
    start_s: float
    end_s: float
    start_sample: int
    end_sample: int
    sample_rate_hz: int
    captured_at: datetime


def _of_span(span: Span) -> _SpanFields:
    return {
        "start_s": seconds(span.start, span.rate_hz),
        "end_s": seconds(span.end, span.rate_hz),
        "start_sample": span.start,
        "end_sample": span.end,
        "sample_rate_hz": span.rate_hz,
        "captured_at": utc(span.end_captured_ns),
    }


def seconds(sample: int, rate_hz: int) -> float:
    """A position in seconds, rounded to the microsecond."""
    return round(sample / rate_hz, 6)


def _ms(samples: int, rate_hz: int) -> float:
    return round(samples * 1000 / rate_hz, 3)


def stream_event(
    info: StreamInfo, state: str, reason: str | None, at_sample: int, captured_ns: int
) -> StreamEvent:
    """A `stream` event at a source index."""
    return StreamEvent(
        **_of_stream(info),
        state=state,  # type: ignore[arg-type]  # one of the literals, by its callers
        reason=reason,
        source=info.source,
        sample_rate_hz=info.sample_rate_hz,
        channel=info.channel,
        encoding=info.encoding,  # type: ignore[arg-type]  # name of an Encoding
        at_sample=at_sample,
        at_s=seconds(at_sample, info.sample_rate_hz),
        captured_at=utc(captured_ns),
    )


def gap_event(info: StreamInfo, gap: Gap) -> GapEvent:
    """A `gap` event in source indexes."""
    return GapEvent(
        **_of_stream(info),
        reason=gap.reason,
        start_sample=gap.start,
        end_sample=gap.end,
        start_s=seconds(gap.start, info.sample_rate_hz),
        end_s=seconds(gap.end, info.sample_rate_hz),
        sample_rate_hz=info.sample_rate_hz,
        lost_ms=_ms(gap.end - gap.start, info.sample_rate_hz),
        messages=gap.messages,
    )


class Scored(NamedTuple):
    """What the model made of a piece of audio: the score of each label, and the highest."""

    label: str
    confidence: float
    scores: dict[str, float]


def rounded_scores(labels: tuple[str, ...], probabilities: Float32Array) -> list[Scored]:
    """Scores to six places that still sum to 1, of float32 ``[n, labels]``, sums 1.

    What rounding takes or adds goes to the highest.
    """
    # Whole millionths are exact in float64, as is a float32 times a million. All rows at once cost
    # 1.4 µs a row in a batch of 16; `round` for each score alone costs 4.3 µs.
    parts = np.rint(probabilities.astype(np.float64) * 1e6)
    highest = parts.argmax(axis=1)
    parts[np.arange(len(parts)), highest] += 1e6 - parts.sum(axis=1)
    # A tie that rounding made may have been decided the other way by now.
    highest = parts.argmax(axis=1)
    return [
        Scored(labels[index], scores[index], dict(zip(labels, scores, strict=True)))
        for index, scores in zip(highest.tolist(), (parts / 1e6).tolist(), strict=True)
    ]


def emotion_event(
    context: SegmentContext,
    model: ModelFacts,
    scored: Scored,
    level: Level,
    latency: SegmentLatency,
) -> EmotionEvent:
    """The `emotion` event of a judged segment."""
    info, span, instruction = context.info, context.span, context.instruction
    return EmotionEvent(
        **_of_stream(info),
        utterance=instruction.utterance,
        index=instruction.index,
        last=instruction.last,
        padded=context.padded,
        **_of_span(span),
        label=scored.label,
        confidence=scored.confidence,
        scores=scored.scores,
        abstained=scored.confidence < model.abstain_below,
        speech_ratio=round(instruction.speech_ratio, 6),
        level_dbfs=level.rms_dbfs,
        clipped_ratio=level.clipped_ratio,
        lost_ms=span.lost_ms,
        model=model.identity,
        latency_ms=latency,
    )


def shadow_event(
    context: SegmentContext, model: ModelFacts, scored: Scored, latency: SegmentLatency
) -> ShadowEvent:
    """The `shadow` event of a segment that a shadow model judged."""
    instruction = context.instruction
    return ShadowEvent(
        **_of_stream(context.info),
        utterance=instruction.utterance,
        index=instruction.index,
        last=instruction.last,
        padded=context.padded,
        **_of_span(context.span),
        label=scored.label,
        confidence=scored.confidence,
        scores=scored.scores,
        abstained=scored.confidence < model.abstain_below,
        model=model.identity,
        latency_ms=latency,
    )


def utterance_event(
    info: StreamInfo,
    span: Span,
    utterance: Utterance,
    offset: Offset,
    model: ModelFacts,
    total_ms: float,
) -> UtteranceEvent:
    """The `utterance` event: the duration-weighted mean over the judged segments.

    `model`: the one in use, which is named when no segment was judged.
    """
    model = utterance.model or model
    weight, heard = utterance.weight, utterance.heard
    scores: dict[str, float] = {}
    label: str | None = None
    confidence = 0.0
    if weight:
        means = [utterance.scores[name] / weight for name in model.labels]
        [(label, confidence, scores)] = rounded_scores(model.labels, np.array([means], np.float32))
    return UtteranceEvent(
        **_of_stream(info),
        utterance=offset.utterance,
        **_of_span(span),
        reason=offset.reason,
        segments=utterance.segments,
        segments_lost=utterance.lost,
        label=label,
        confidence=confidence,
        scores=scores,
        abstained=confidence < model.abstain_below,
        speech_ratio=round(offset.speech_ratio, 6),
        level_dbfs=dbfs(utterance.power / heard) if heard else SILENT_DBFS,
        clipped_ratio=round(utterance.clipped / heard, 6) if heard else 0.0,
        lost_ms=span.lost_ms,
        model=model.identity,
        latency_ms=UtteranceLatency(total=total_ms),
    )
