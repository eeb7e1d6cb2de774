"""Features of the samples themselves, as librosa has them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_THRESHOLD = 1e-10


def zero_crossing_rate(audio: Tensor, n_fft: int, hop_length: int, count: int) -> Tensor:
    """Share of a frame's samples whose sign is not their predecessor's.

    Parameters
    ----------
    audio
        float32 [batch, samples], at least `n_fft` of them.
    count
        frames.

    Returns
    -------
    float32 [batch, count, 1].
    """
    negative = (audio < -_THRESHOLD).float()
    crossing = functional.pad((negative[:, 1:] - negative[:, :-1]).abs(), (1, 0))
    # Whole numbers: the running sum is exact up to 2**24.
    total = torch.cumsum(crossing, dim=1)
    before, after = total[:, ::hop_length], total[:, n_fft - 1 :: hop_length]
    return ((after[:, :count] - before[:, :count]) / n_fft)[:, :, None]


def root_mean_square(frames: Tensor) -> Tensor:
    """Level of frames: float32 [batch, frames, n_fft] to [batch, frames, 1]."""
    return torch.sqrt((frames * frames).mean(dim=2, keepdim=True))
