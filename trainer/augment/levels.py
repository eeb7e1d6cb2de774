"""Level, clipping and equaliser: float32 [samples] at 16 kHz in and out, length kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.audio import SAMPLE_RATE_HZ, Float32


def rms(samples: Float32) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def set_level(samples: Float32, dbfs: float) -> Float32:
    """Scale to an RMS level; peaks beyond full scale are left for `to_int16` to clip."""
    level = rms(samples)
    return samples * np.float32(10 ** (dbfs / 20) / level) if level > 0 else samples


def change_gain(samples: Float32, db: float) -> Float32:
    """Scale by a gain, whatever the level."""
    return samples * np.float32(10 ** (db / 20))


def clip_peaks(samples: Float32, ratio: float) -> Float32:
    """Limit at `ratio` of the peak."""
    limit = np.float32(ratio * float(np.max(np.abs(samples), initial=0.0)))
    return np.clip(samples, -limit, limit) if limit > 0 else samples


def equalise(samples: Float32, gains_db: Sequence[float]) -> Float32:
    """Gains at frequencies spaced evenly in octaves from 60 Hz to 8 kHz, linear between."""
    spectrum = np.fft.rfft(samples)
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE_HZ), 1.0))
    knots = np.linspace(np.log2(60.0), np.log2(8000.0), len(gains_db))
    curve = 10 ** (np.interp(octave, knots, gains_db) / 20)
    return np.fft.irfft(spectrum * curve, len(samples)).astype(np.float32)
