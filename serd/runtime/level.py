"""How loud a piece of audio is."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from serd.types import Int16Array

SILENT_DBFS = -120.0
_CLIPPED = 32767


class Level(NamedTuple):
    """How loud a segment is."""

    rms_dbfs: float
    clipped_ratio: float

    @classmethod
    def of(cls, audio: Int16Array) -> Level:
        """Measure int16 ``[n]``: RMS relative to a full-scale square wave, and clipping."""
        if not len(audio):
            return cls(SILENT_DBFS, 0.0)
        # A dot product in float32 is exact enough for a level and far cheaper than int64.
        scaled = audio.astype(np.float32)
        power = float(np.dot(scaled, scaled)) / len(audio) / 32768.0**2
        clipped = 0
        # Two reductions cost half of two comparisons with their counts, and nearly always suffice.
        if audio.max() >= _CLIPPED or audio.min() <= -_CLIPPED:
            clipped = int(np.count_nonzero((audio >= _CLIPPED) | (audio <= -_CLIPPED)))
        return cls(dbfs(power), round(clipped / len(audio), 6))


def dbfs(power: float) -> float:
    """A power in dBFS, to two places; full scale is 1."""
    return round(max(SILENT_DBFS, 10 * math.log10(power)), 2) if power > 0 else SILENT_DBFS
