"""Speech to test with, and what two runs of it must have in common."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from serd.types import Int16Array

Json = dict[str, Any]


def demo_recording() -> Path:
    """The shipped synthetic recording."""
    return Path(str(resources.files("serd") / "demo" / "two-voices.flac"))


def demo_speech(rate_hz: int) -> Int16Array:
    """Its samples at a rate, mono int16."""
    samples, recorded_hz = soundfile.read(demo_recording(), dtype="float32", always_2d=True)
    resampled = soxr.resample(samples[:, 0], recorded_hz, rate_hz, quality="HQ")
    speech: Int16Array = np.clip(np.rint(resampled * 32767), -32768, 32767).astype(np.int16)
    return speech


def essence(events: Iterable[Json], stream: str) -> list[Json]:
    """What the events of a stream say of its audio, without the times at which they were said."""
    kept: list[Json] = []
    for event in events:
        if event.get("stream") != stream or event["type"] == "gap":
            continue
        kept.append(
            {
                name: event[name]
                for name in (
                    "type",
                    "state",
                    "reason",
                    "utterance",
                    "index",
                    "last",
                    "padded",
                    "at_sample",
                    "start_sample",
                    "end_sample",
                    "sample_rate_hz",
                    "segments",
                    "segments_lost",
                    "label",
                    "abstained",
                    "speech_ratio",
                    "level_dbfs",
                    "clipped_ratio",
                    "lost_ms",
                    "role",
                    "seq",
                )
                if name in event
            }
        )
    return kept


def scores(events: Iterable[Json], stream: str) -> list[list[float]]:
    """Scores of every judged event of a stream, in order."""
    return [
        list(event["scores"].values())
        for event in events
        if event.get("stream") == stream and event["type"] in {"emotion", "utterance"}
    ]
