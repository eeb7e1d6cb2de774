from __future__ import annotations

import msgspec
import pytest

from serd.commands.render import HEADING, line
from serd.protocol.events import (
    DaemonEvent,
    EmotionEvent,
    Event,
    GapEvent,
    SegmentLatency,
    SpeechEvent,
    StreamEvent,
    UtteranceEvent,
    UtteranceLatency,
    utc,
)
from serd.types import Role

SCORES = {"angry": 0.71, "happy": 0.2, "surprised": 0.09}

STREAM = StreamEvent(
    stream="call-42/0",
    role=Role.CUSTOMER,
    state="opened",
    source="zmq-0",
    sample_rate_hz=8000,
    channel=0,
    encoding="mulaw",
    at_sample=0,
    at_s=0.0,
)
SPEECH = SpeechEvent(
    stream="call-42/0",
    state="offset",
    reason="silence",
    utterance=3,
    at_sample=29_000_000,
    at_s=3625.0,
    sample_rate_hz=8000,
)
EMOTION = EmotionEvent(
    stream="call-42/0",
    utterance=3,
    index=1,
    last=False,
    padded=False,
    start_s=62.34,
    end_s=65.34,
    start_sample=498720,
    end_sample=522720,
    sample_rate_hz=8000,
    captured_at=utc(0),
    label="angry",
    confidence=0.71,
    scores=SCORES,
    abstained=False,
    speech_ratio=0.93,
    level_dbfs=-23.1,
    clipped_ratio=0.0,
    lost_ms=0.0,
    model="m",
    latency_ms=SegmentLatency(wait=9.1, inference=3.4, total=21.2),
)
UTTERANCE = UtteranceEvent(
    stream="call-42/0",
    utterance=3,
    start_s=60.0,
    end_s=64.3,
    start_sample=0,
    end_sample=1,
    sample_rate_hz=8000,
    captured_at=utc(0),
    reason="silence",
    segments=2,
    segments_lost=0,
    label="surprised",
    confidence=0.09,
    scores=SCORES,
    abstained=True,
    speech_ratio=0.9,
    level_dbfs=-20.0,
    clipped_ratio=0.0,
    lost_ms=0.0,
    model="m",
    latency_ms=UtteranceLatency(total=7.0),
)
GAP = GapEvent(
    stream="call-42/0",
    reason="lost",
    start_sample=0,
    end_sample=160,
    start_s=0.0,
    end_s=0.02,
    sample_rate_hz=8000,
    lost_ms=20.0,
    messages=1,
)
DAEMON = DaemonEvent(
    state="ready",
    name="serd",
    version="0.1.0",
    run_id="0" * 16,
    uptime_s=1.0,
    streams=0,
    model="serd-crnn-1@sha256:99967dd1b46d",
    provider="CPUExecutionProvider",
    vad="silero",
    counts={},
)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (STREAM, "   0:00.0 call-42/0  stream    opened, 8000 Hz mulaw, customer"),
        (SPEECH, "1:00:25.0 call-42/0  speech    offset of utterance 3 (silence)"),
        (
            EMOTION,
            "   1:05.3 call-42/0  emotion   angry      0.71 ━━━━─ happy 0.20" + " " * 12 + "21 ms",
        ),
        (
            UTTERANCE,
            "   1:04.3 call-42/0  utterance surprised? 0.09  4.3s angry 0.71" + " " * 13 + "7 ms",
        ),
        (GAP, "   0:00.0 call-42/0  gap       20 ms: lost"),
        (DAEMON, "          serd       daemon    ready: serd-crnn-1 on CPU, speech by silero"),
    ],
)
def test_a_line_says_what_happened(event: Event, expected: str) -> None:
    assert line(event).plain == expected


def test_an_utterance_that_nothing_judged() -> None:
    event = msgspec.structs.replace(UTTERANCE, label=None, scores={}, segments=0)
    assert "4.3s no segment was judged" in line(event).plain


def test_a_refusal_gives_the_reason() -> None:
    event = msgspec.structs.replace(STREAM, state="refused", reason="role_refused")
    assert line(event).plain.endswith("refused (role_refused)")


def test_lines_fit_a_terminal() -> None:
    longest = msgspec.structs.replace(
        EMOTION,
        stream="a-very-long-name-of-a-stream/7",
        label="surprised",
        scores={"surprised": 0.5, "surprise2": 0.4},
        abstained=True,
        padded=True,
        latency_ms=SegmentLatency(wait=0.0, inference=0.0, total=9999.0),
    )
    for text in (line(longest), HEADING):
        assert text.cell_len <= 80
    assert "…-stream/7" in line(longest).plain


def test_every_label_may_be_unknown() -> None:
    event = msgspec.structs.replace(EMOTION, label="bored", scores={"bored": 1.0})
    assert "bored" in line(event).plain
