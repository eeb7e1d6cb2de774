"""Events out, version 1: their fields, their JSON and their topics.

The README beside this module is the specification. An event is built by the part of the daemon
that knows it, without `id`, `cursor`, `emitted_at` and `seq`: those are stamped where it is
published.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from serd.errors import MessageError
from serd.types import Role

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Position: TypeAlias = Annotated[
    int, Meta(ge=0, description="samples at sample_rate_hz, counted by the tap, per channel")
]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, description="seconds: the sample index / rate")]
Milliseconds: TypeAlias = Annotated[float, Meta(ge=0, description="milliseconds")]
RateHz: TypeAlias = Annotated[
    int, Meta(ge=8000, le=48000, description="samples a second, as the tap sends them")
]
_Utc: TypeAlias = Annotated[datetime, Meta(tz=True)]
AtSample: TypeAlias = Annotated[
    _Utc | None, Meta(description="wall time of at_sample; RFC 3339, UTC")
]
AtEnd: TypeAlias = Annotated[_Utc, Meta(description="wall time of end_sample; RFC 3339, UTC")]


def utc(unix_ns: int) -> datetime:
    """Time of an event from nanoseconds since 1970, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=unix_ns // 1000)


class _Common(Struct, kw_only=True, tag_field="type"):
    v: Annotated[Literal[1], Meta(description="version of the event format")] = 1
    id: Annotated[str, Meta(description="run id, a hyphen, the cursor: unique for ever")] = ""
    cursor: Annotated[
        int, Meta(ge=0, description="position among all events; one more with each of a run")
    ] = 0
    emitted_at: Annotated[_Utc, Meta(description="when the event was published; RFC 3339, UTC")] = (
        _EPOCH
    )


class _OfStream(_Common, kw_only=True):
    stream: Annotated[str, Meta(description="stream id; channel k of several is ID/k")]
    seq: Annotated[
        int, Meta(ge=0, description="position among the events of this stream, from 0")
    ] = 0
    call_id: Annotated[str | None, Meta(description="from the tap's metadata")] = None
    role: Annotated[Role, Meta(description="who speaks on the channel")] = Role.UNKNOWN
    labels: Annotated[dict[str, str], Meta(description="from the tap's metadata")] = {}


class StreamEvent(_OfStream, kw_only=True, tag="stream"):
    """A stream was opened, closed, paused, resumed or refused."""

    state: Literal["opened", "closed", "paused", "resumed", "refused"]
    reason: Annotated[str | None, Meta(description="why; null when opened")] = None
    source: Annotated[str, Meta(description="name of the source in the configuration")]
    sample_rate_hz: RateHz
    channel: Annotated[int, Meta(ge=0, le=7, description="channel of the source, from 0")]
    encoding: Annotated[
        Literal["none", "s16le", "mulaw", "alaw", "f32le"],
        Meta(description="encoding of the samples as they came"),
    ]
    at_sample: Position
    at_s: Seconds
    captured_at: AtSample = None


class SpeechEvent(_OfStream, kw_only=True, tag="speech"):
    """Speech began or ended."""

    state: Literal["onset", "offset"]
    reason: Annotated[
        str | None, Meta(description="why the utterance ended; null for an onset")
    ] = None
    utterance: Annotated[int, Meta(ge=0, description="number of the utterance in its stream")]
    at_sample: Position
    at_s: Seconds
    sample_rate_hz: RateHz
    captured_at: AtSample = None


class SegmentLatency(Struct, kw_only=True):
    """Where the time of a segment went."""

    wait: Annotated[
        float, Meta(ge=0, description="milliseconds from queueing to the start of the inference")
    ]
    inference: Annotated[float, Meta(ge=0, description="milliseconds of the batch's inference")]
    total: Annotated[
        float,
        Meta(ge=0, description="milliseconds from the arrival of the last sample to the event"),
    ]


class EmotionEvent(_OfStream, kw_only=True, tag="emotion"):
    """What the model made of one segment."""

    utterance: Annotated[int, Meta(ge=0, description="number of the utterance in its stream")]
    index: Annotated[int, Meta(ge=0, description="number of the segment in its utterance")]
    last: Annotated[bool, Meta(description="last segment of its utterance")]
    padded: Annotated[bool, Meta(description="shorter than the model's window")]
    start_s: Seconds
    end_s: Seconds
    start_sample: Position
    end_sample: Position
    sample_rate_hz: RateHz
    captured_at: AtEnd
    label: Annotated[str, Meta(description="label with the highest score")]
    confidence: Annotated[float, Meta(ge=0, le=1, description="score of the label, 0 to 1")]
    scores: Annotated[
        dict[str, float], Meta(description="calibrated probability of each label, sum 1")
    ]
    abstained: Annotated[
        bool, Meta(description="the confidence is below what the model asks for a decision")
    ]
    speech_ratio: Annotated[
        float, Meta(ge=0, le=1, description="share of the segment that is speech, 0 to 1")
    ]
    level_dbfs: Annotated[float, Meta(description="RMS level of the segment in dBFS")]
    clipped_ratio: Annotated[
        float, Meta(ge=0, le=1, description="share of the samples at full scale, 0 to 1")
    ]
    lost_ms: Annotated[
        float, Meta(ge=0, description="milliseconds of the segment that were lost and filled")
    ]
    model: Annotated[str, Meta(description="name, version and hash of the model")]
    latency_ms: Annotated[SegmentLatency, Meta(description="milliseconds")]


class ShadowEvent(_Common, kw_only=True, tag="shadow"):
    """What a model on trial made of one segment. Takes no place in the count of its stream."""

    stream: Annotated[str, Meta(description="stream id; channel k of several is ID/k")]
    call_id: Annotated[str | None, Meta(description="from the tap's metadata")] = None
    role: Annotated[Role, Meta(description="who speaks on the channel")] = Role.UNKNOWN
    labels: Annotated[dict[str, str], Meta(description="from the tap's metadata")] = {}
    utterance: Annotated[int, Meta(ge=0, description="number of the utterance in its stream")]
    index: Annotated[int, Meta(ge=0, description="number of the segment in its utterance")]
    last: Annotated[bool, Meta(description="last segment of its utterance")]
    padded: Annotated[bool, Meta(description="shorter than the model's window")]
    start_s: Seconds
    end_s: Seconds
    start_sample: Position
    end_sample: Position
    sample_rate_hz: RateHz
    captured_at: AtEnd
    label: Annotated[str, Meta(description="label with the highest score")]
    confidence: Annotated[float, Meta(ge=0, le=1, description="score of the label, 0 to 1")]
    scores: Annotated[
        dict[str, float], Meta(description="calibrated probability of each label, sum 1")
    ]
    abstained: Annotated[
        bool, Meta(description="the confidence is below what the model asks for a decision")
    ]
    model: Annotated[str, Meta(description="name, version and hash of the model on trial")]
    latency_ms: Annotated[SegmentLatency, Meta(description="milliseconds")]


class UtteranceLatency(Struct, kw_only=True):
    """Where the time of an utterance went."""

    total: Annotated[
        float,
        Meta(ge=0, description="milliseconds from the arrival of the last sample to the event"),
    ]


class UtteranceEvent(_OfStream, kw_only=True, tag="utterance"):
    """The duration-weighted result over the segments of an utterance."""

    utterance: Annotated[int, Meta(ge=0, description="number of the utterance in its stream")]
    start_s: Seconds
    end_s: Seconds
    start_sample: Position
    end_sample: Position
    sample_rate_hz: RateHz
    captured_at: AtEnd
    reason: Annotated[str, Meta(description="why the utterance ended")]
    segments: Annotated[
        int,
        Meta(ge=0, description="segments that the result rests on: those judged by this model"),
    ]
    segments_lost: Annotated[int, Meta(ge=0, description="segments that were never judged")]
    label: Annotated[
        str | None, Meta(description="label with the highest score; null without any segment")
    ]
    confidence: Annotated[float, Meta(ge=0, le=1, description="score of the label, 0 to 1")]
    scores: Annotated[
        dict[str, float],
        Meta(description="probability of each label, sum 1; empty without any segment"),
    ]
    abstained: Annotated[
        bool, Meta(description="the confidence is below what the model asks for a decision")
    ]
    speech_ratio: Annotated[
        float, Meta(ge=0, le=1, description="share of the utterance that is speech, 0 to 1")
    ]
    level_dbfs: Annotated[float, Meta(description="RMS level of the utterance in dBFS")]
    clipped_ratio: Annotated[
        float, Meta(ge=0, le=1, description="share of the samples at full scale, 0 to 1")
    ]
    lost_ms: Annotated[
        float, Meta(ge=0, description="milliseconds of the utterance that were lost and filled")
    ]
    model: Annotated[str, Meta(description="name, version and hash of the model")]
    latency_ms: Annotated[UtteranceLatency, Meta(description="milliseconds")]


class GapEvent(_OfStream, kw_only=True, tag="gap"):
    """Audio, or the judgement of it, was lost."""

    reason: Annotated[str, Meta(description="why it was lost")]
    start_sample: Position
    end_sample: Position
    start_s: Seconds
    end_s: Seconds
    sample_rate_hz: RateHz
    lost_ms: Milliseconds
    messages: Annotated[int, Meta(ge=0, description="tap messages lost; 0 where unknown or none")]


class DaemonEvent(_Common, kw_only=True, tag="daemon"):
    """State of the daemon itself."""

    state: Literal["ready", "heartbeat", "draining", "stopped"]
    name: Annotated[str, Meta(description="name of the daemon in its configuration")]
    version: Annotated[str, Meta(description="version of serd")]
    run_id: Annotated[str, Meta(description="16 hex digits, new at every start of the daemon")]
    uptime_s: Annotated[float, Meta(ge=0, description="seconds since the daemon started")]
    last_cursor: Annotated[
        int, Meta(ge=0, description="cursor of the event before this one, 0 for none")
    ] = 0
    streams: Annotated[int, Meta(ge=0, description="open streams")]
    model: Annotated[str, Meta(description="name, version and hash of the model")]
    provider: Annotated[str, Meta(description="where the model runs")]
    vad: Annotated[str, Meta(description="name of the voice-activity detector")]
    counts: Annotated[
        dict[str, int], Meta(description="monotonic counters since the start, by name")
    ]


Event: TypeAlias = (
    StreamEvent | SpeechEvent | EmotionEvent | UtteranceEvent | GapEvent | ShadowEvent | DaemonEvent
)

EVENT_TYPES: dict[str, type[Event]] = {
    "stream": StreamEvent,
    "speech": SpeechEvent,
    "emotion": EmotionEvent,
    "utterance": UtteranceEvent,
    "gap": GapEvent,
    "shadow": ShadowEvent,
    "daemon": DaemonEvent,
}

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """JSON of an event, UTF-8, no line breaks."""
    return _encoder.encode(event)


def decode(payload: bytes | memoryview) -> Event:
    """Read an event; fields that this version does not know are skipped.

    Raises
    ------
    MessageError
        Code ``bad_event``: not JSON, of an unknown type or version, or a field is missing or
        of the wrong type.
    """
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError("bad_event", f"not an event: {error}") from None


def topic(event: Event) -> bytes:
    """Topic under which an event is published: ``type.stream``, or ``daemon.state``."""
    if isinstance(event, DaemonEvent):
        return f"daemon.{event.state}".encode()
    return f"{event.__struct_config__.tag}.{event.stream}".encode()
