"""Cepstral coefficients and their slopes over time, as librosa has them."""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.signal
import torch
from torch import Tensor, nn

DELTA_WIDTH = 9


class Cepstrum(nn.Module):
    """Orthonormal cosine transform of mel bands in decibels: `mfcc(S=...)`."""

    weight: Tensor

    def __init__(self, n_mels: int, n_mfcc: int) -> None:
        super().__init__()
        basis = scipy.fft.dct(np.eye(n_mels), axis=1, type=2, norm="ortho")[:, :n_mfcc]
        weight = torch.from_numpy(np.ascontiguousarray(basis, np.float32))
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """float32 [batch, frames, n_mels] to [batch, frames, n_mfcc]."""
        return torch.matmul(mel, self.weight)


def delta(values: Tensor, frames: Tensor, order: int) -> Tensor:
    """Derivative over time: `delta(width=9, order=order, mode="nearest")`.

    A fitted polynomial's (Savitzky and Golay, 1964), the first and the last valid frame going
    on for ever.

    Parameters
    ----------
    values
        float32 [batch, frames, rows].
    frames
        int64 [batch], valid frames.
    """
    steps, half = values.shape[1], DELTA_WIDTH // 2
    around = torch.arange(-half, steps + half, device=values.device)[None, :]
    index = torch.minimum(torch.clamp(around, min=0), frames[:, None] - 1)
    held = torch.gather(values, 1, index[:, :, None].expand(-1, -1, values.shape[2]))
    # Convolution turns the taps round.
    taps = scipy.signal.savgol_coeffs(DELTA_WIDTH, order, deriv=order)[::-1]
    slope = torch.zeros_like(values)
    for i, tap in enumerate(taps.tolist()):
        slope = slope + tap * held[:, i : i + steps]
    return slope
