"""One event of every type, and makers of events for the tests of sinks and client."""

from __future__ import annotations

from typing import Any

from serd.protocol.events import (
    DaemonEvent,
    EmotionEvent,
    Event,
    GapEvent,
    SegmentLatency,
    ShadowEvent,
    SpeechEvent,
    StreamEvent,
    UtteranceEvent,
    UtteranceLatency,
    utc,
)
from serd.types import Role

UNIX_NS = 1_769_851_815_340_000_000
SCORES = {
    "neutral": 0.05,
    "calm": 0.04,
    "happy": 0.02,
    "sad": 0.03,
    "angry": 0.71,
    "fearful": 0.06,
    "disgust": 0.05,
    "surprised": 0.04,
}


def stream(name: str = "call-42/0", state: Any = "opened", **fields: Any) -> StreamEvent:
    values: dict[str, Any] = {
        "stream": name,
        "state": state,
        "source": "zmq-0",
        "sample_rate_hz": 8000,
        "channel": 0,
        "encoding": "mulaw",
        "at_sample": 0,
        "at_s": 0.0,
        "captured_at": utc(UNIX_NS),
    }
    return StreamEvent(**(values | fields))


def speech(name: str = "call-42/0", **fields: Any) -> SpeechEvent:
    values: dict[str, Any] = {
        "stream": name,
        "state": "onset",
        "utterance": 3,
        "at_sample": 98720,
        "at_s": 12.34,
        "sample_rate_hz": 8000,
        "captured_at": utc(UNIX_NS),
    }
    return SpeechEvent(**(values | fields))


def emotion(name: str = "call-42/0", **fields: Any) -> EmotionEvent:
    values: dict[str, Any] = {
        "stream": name,
        "call_id": "2026-0815",
        "role": Role.CUSTOMER,
        "labels": {"queue": "billing"},
        "utterance": 3,
        "index": 1,
        "last": False,
        "padded": False,
        "start_s": 12.34,
        "end_s": 15.34,
        "start_sample": 98720,
        "end_sample": 122720,
        "sample_rate_hz": 8000,
        "captured_at": utc(UNIX_NS),
        "label": "angry",
        "confidence": 0.71,
        "scores": SCORES,
        "abstained": False,
        "speech_ratio": 0.93,
        "level_dbfs": -23.1,
        "clipped_ratio": 0.0,
        "lost_ms": 0.0,
        "model": "serd-crnn-1@sha256:ab12cd34ef56",
        "latency_ms": SegmentLatency(wait=9.1, inference=3.4, total=21.0),
    }
    return EmotionEvent(**(values | fields))


def utterance(name: str = "call-42/0", **fields: Any) -> UtteranceEvent:
    values: dict[str, Any] = {
        "stream": name,
        "utterance": 3,
        "start_s": 11.34,
        "end_s": 15.34,
        "start_sample": 90720,
        "end_sample": 122720,
        "sample_rate_hz": 8000,
        "captured_at": utc(UNIX_NS),
        "reason": "silence",
        "segments": 2,
        "segments_lost": 0,
        "label": "angry",
        "confidence": 0.71,
        "scores": SCORES,
        "abstained": False,
        "speech_ratio": 0.93,
        "level_dbfs": -23.1,
        "clipped_ratio": 0.0,
        "lost_ms": 0.0,
        "model": "serd-crnn-1@sha256:ab12cd34ef56",
        "latency_ms": UtteranceLatency(total=24.5),
    }
    return UtteranceEvent(**(values | fields))


def shadow(name: str = "call-42/0", **fields: Any) -> ShadowEvent:
    values: dict[str, Any] = {
        "stream": name,
        "call_id": "2026-0815",
        "role": Role.CUSTOMER,
        "labels": {"queue": "billing"},
        "utterance": 3,
        "index": 1,
        "last": False,
        "padded": False,
        "start_s": 12.34,
        "end_s": 15.34,
        "start_sample": 98720,
        "end_sample": 122720,
        "sample_rate_hz": 8000,
        "captured_at": utc(UNIX_NS),
        "label": "angry",
        "confidence": 0.71,
        "scores": SCORES,
        "abstained": False,
        "model": "next-crnn-2@sha256:cd34ef56ab12",
        "latency_ms": SegmentLatency(wait=40.1, inference=3.4, total=52.0),
    }
    return ShadowEvent(**(values | fields))


def gap(name: str = "call-42/0", **fields: Any) -> GapEvent:
    values: dict[str, Any] = {
        "stream": name,
        "reason": "lost",
        "start_sample": 8000,
        "end_sample": 8320,
        "start_s": 1.0,
        "end_s": 1.04,
        "sample_rate_hz": 8000,
        "lost_ms": 40.0,
        "messages": 2,
    }
    return GapEvent(**(values | fields))


def daemon(state: Any = "heartbeat", **fields: Any) -> DaemonEvent:
    values: dict[str, Any] = {
        "state": state,
        "name": "serd",
        "version": "0.1.0",
        "run_id": "0123456789abcdef",
        "uptime_s": 3600.0,
        "streams": 2,
        "model": "serd-crnn-1@sha256:ab12cd34ef56",
        "provider": "CPUExecutionProvider",
        "vad": "silero-vad-6",
        "counts": {"messages": 360000},
    }
    return DaemonEvent(**(values | fields))


def examples() -> list[Event]:
    return [stream(), speech(), emotion(), utterance(), gap(), shadow(), daemon()]
