"""Small types that every package shares."""

from __future__ import annotations

from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

Int16Array = NDArray[np.int16]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

FRAME_MS = 32
"""Length of a voice-activity frame. silero's networks are trained for it."""

NATIVE_RATES_HZ = (8000, 16000)
"""Rates at which rows are kept; every other rate is resampled to the higher one."""


class Encoding(IntEnum):
    """Sample encodings of the tap protocol (header field ``encoding``)."""

    NONE = 0
    S16LE = 1
    MULAW = 2
    ALAW = 3
    F32LE = 4

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of one channel; 0 for `NONE`."""
        return (0, 2, 1, 1, 4)[self]


class Role(StrEnum):
    """Who speaks on a channel; `MIXED` where several do who are not the same."""

    CUSTOMER = "customer"
    AGENT = "agent"
    SELF = "self"
    MIXED = "mixed"
    UNKNOWN = "unknown"


def native_rate_hz(sample_rate_hz: int) -> int:
    """Rate at which a row keeps a stream of `sample_rate_hz`: 8000 stays, all else is 16000."""
    return 8000 if sample_rate_hz == 8000 else 16000


def frame_samples(rate_hz: int) -> int:
    """Samples of one voice-activity frame at a native rate (256 at 8 kHz, 512 at 16 kHz)."""
    return rate_hz * FRAME_MS // 1000
