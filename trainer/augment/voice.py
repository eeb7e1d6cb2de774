"""The same words said faster, slower, higher, lower, earlier or later."""

from __future__ import annotations

import numpy as np
import python_stretch
import soxr

from trainer.audio import SAMPLE_RATE_HZ, Float32

# Stretching and shifting are Signalsmith Stretch's, through python-stretch: MIT, no dependency,
# reproducible from a seed. On eight RAVDESS utterances of 3 s, there and back again, one core
# (mean difference of log-mels from the original; time for one way):
#     python-stretch 0.3.1                 0.03   5 to 7 ms
#     pedalboard 0.9 (Rubber Band, GPL)    0.05   37 to 128 ms
#     librosa 0.11 (phase vocoder)         0.15   5 to 8 ms, 6 to 17 ms with frames of 32 ms
# audiomentations 0.43 calls python-stretch too, but draws from global generators and requires
# soxr below 1.0.


def change_speed(samples: Float32, factor: float) -> Float32:
    """Play faster by `factor`, pitch and duration together: [samples / factor]."""
    changed = soxr.resample(samples, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ, quality="MQ")
    return np.asarray(changed, np.float32)


def _stretch(samples: Float32, factor: float, semitones: float) -> Float32:
    stretcher = python_stretch.Signalsmith.Stretch(0)
    stretcher.preset(1, SAMPLE_RATE_HZ)
    stretcher.setTimeFactor(factor)
    stretcher.setTransposeSemitones(semitones)
    rows = np.ascontiguousarray(samples, np.float32)[None]
    stretched: Float32 = np.asarray(stretcher.process(rows), np.float32)[0]
    return stretched


def stretch_time(samples: Float32, factor: float) -> Float32:
    """Say it faster by `factor` at the same pitch: [samples / factor]."""
    return _stretch(samples, factor, 0.0)


def shift_pitch(samples: Float32, semitones: float) -> Float32:
    """Move the pitch, formants with it, and keep the duration: [samples]."""
    return _stretch(samples, 1.0, semitones)


def shift_time(samples: Float32, offset: int) -> Float32:
    """Move `offset` samples later, or earlier where negative; silence fills in: [samples]."""
    shifted = np.zeros_like(samples)
    if offset >= 0:
        shifted[offset:] = samples[: max(0, len(samples) - offset)]
    else:
        shifted[:offset] = samples[-offset:]
    return shifted
