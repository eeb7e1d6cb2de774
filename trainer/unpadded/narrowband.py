"""8 kHz where a model hears 16: audio, and the sines and cosines of its spectrum.

A model that looks no higher than 4 kHz needs no more. A frame's spectrum is a product of the
upsampled frame with sines and cosines, and upsampling is linear: so the sines and cosines are sent
through the resampler's filter once, here, instead of every segment there. That halves the
spectrum's cost too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr
from torch import Tensor
from torch.nn import functional

from serd.audio.resample import QUALITY
from trainer.audio import Float32
from trainer.features.spectrum import cut_windows
from trainer.graph import Int64

SAMPLE_RATE_HZ = 8_000

_REACH = 400


def through_upsampling(basis: npt.NDArray[np.float64], margin: int) -> Float32:
    """[rows, n] for 16 kHz to [rows, n / 2 + 2 * margin] for 8 kHz, by the response of soxr.

    `margin` is how many samples before and after a frame its filter reaches.
    """
    impulse = np.zeros(2 * _REACH + 1)
    impulse[_REACH] = 1.0
    response = soxr.resample(impulse, SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ, quality=QUALITY)
    taps = basis.shape[1]
    fine = np.arange(taps)[:, None]
    coarse = np.arange(-margin, taps // 2 + margin)[None, :]
    return np.asarray(basis @ response[2 * _REACH + fine - 2 * coarse], np.float32)


def frames_of(audio: Tensor, before: int, after: int, taps: int, hop: int) -> Tensor:
    """Every frame that there is, as `cut_windows` has them: float32 [batch, frames, taps].

    `before` and `after` are samples of silence around it.
    """
    count = (audio.shape[1] + before + after - taps) // hop + 1
    return cut_windows(functional.pad(audio, (before, after)), count, taps, hop)


def narrowed(row: Float32, samples: int) -> Float32:
    """The first `samples` of a 16 kHz row at 8 kHz: float32 [samples / 2]."""
    return np.asarray(
        soxr.resample(row[:samples], 2 * SAMPLE_RATE_HZ, SAMPLE_RATE_HZ, quality=QUALITY),
        np.float32,
    )


def widened(audio: Float32, length: Int64) -> tuple[Float32, Int64]:
    """What the daemon makes of 8 kHz segments for the other graph: narrowed, then upsampled."""
    wide, there = np.zeros_like(audio), np.zeros_like(length)
    for i, (row, count) in enumerate(zip(audio, length, strict=True)):
        both = soxr.resample(
            narrowed(row, count), SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ, quality=QUALITY
        )
        there[i] = min(len(both), audio.shape[1])
        wide[i, : there[i]] = both[: there[i]]
    return wide, there
