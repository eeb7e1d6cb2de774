"""Recordings as arrays: 16 kHz mono, int16 where kept, float32 where computed with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf
import soxr

from trainer.errors import TrainerError

SAMPLE_RATE_HZ = 16_000

Int16 = npt.NDArray[np.int16]
Float32 = npt.NDArray[np.float32]


def to_float(samples: Int16) -> Float32:
    """int16 to float32 in [-1, 1)."""
    return samples.astype(np.float32) / 32768.0


def to_int16(samples: npt.NDArray[np.floating]) -> Int16:
    """float in [-1, 1] to int16, rounded, limited to the range."""
    scaled = np.rint(np.asarray(samples) * 32768.0)
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def decode(path: Path) -> Int16:
    """Samples of a file, channels averaged, at 16 kHz: int16 [samples].

    Raises
    ------
    TrainerError
        the file cannot be read, or holds samples that are not numbers.
    """
    try:
        samples, rate_hz = sf.read(path, dtype="float32", always_2d=True)
    except (sf.SoundFileError, OSError) as error:
        raise TrainerError(f"{path} cannot be read: {error}") from None
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise TrainerError(f"{path} cannot be used: it holds samples that are not numbers.")
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
    return to_int16(mono)
