"""Energy gate with an adaptive noise floor, for use without a network."""

from __future__ import annotations

import numpy as np

from serd.types import FRAME_MS, Float32Array, Int16Array, Int64Array, frame_samples


class EnergyDetector:
    """Speech probability from the level above the row's noise floor."""

    name = "energy"

    def __init__(self, sample_rate_hz: int, rows: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.frame_samples = frame_samples(sample_rate_hz)
        self._floor = np.full(rows, np.inf)

    def step(self, rows: Int64Array, frames: Int16Array) -> Float32Array:
        """See `Detector.step`."""
        level = 10 * np.log10(frames.astype(np.float64).var(axis=1) + 1.0)
        floor = np.minimum(self._floor[rows] + 3.0 * FRAME_MS / 1000, level)
        self._floor[rows] = floor
        odds = np.exp((level - np.maximum(floor, 20) - 9) * -0.4)
        return (1 / (1 + odds)).astype(np.float32)

    def reset(self, rows: Int64Array) -> None:
        """See `Detector.reset`."""
        self._floor[rows] = np.inf
