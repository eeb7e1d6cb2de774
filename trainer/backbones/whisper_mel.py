"""Whisper's features, for its encoder and for those that were made from it.

Source: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022.
"""

from __future__ import annotations

import librosa
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.features import time_mask
from trainer.features.spectrum import PowerSpectrum, cut_windows

N_FFT, HOP_SAMPLES = 400, 160


class FewBins(nn.Module):
    """Power of the lowest bins of frames under a periodic Hann window.

    Parameters
    ----------
    n_fft
        samples of a frame.
    bins
        how many, from 0 Hz on.
    """

    basis: Tensor

    def __init__(self, n_fft: int, bins: int) -> None:
        super().__init__()
        basis = fourier_basis(n_fft, bins)
        self.register_buffer("basis", torch.from_numpy(basis.astype(np.float32)), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """float32 [batch, frames, n_fft] to [batch, frames, bins]."""
        real, imaginary = torch.matmul(frames, self.basis).chunk(2, dim=2)
        return real * real + imaginary * imaginary


def fourier_basis(n_fft: int, bins: int) -> npt.NDArray[np.float64]:
    """Cosines, then sines of the lowest bins, under a periodic Hann window: [n_fft, 2 bins]."""
    angle = 2 * np.pi * np.arange(n_fft)[:, None] * np.arange(bins) / n_fft
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1) * window[:, None]


class WhisperMel(nn.Module):
    """Log-mel levels of 16 kHz audio, every 10 ms, in the order that products of matrices like.

    Parameters
    ----------
    mels
        bands up to 8 kHz.
    bands
        of these, how many of the lowest are given; None: all.
    """

    mel: Tensor

    def __init__(self, mels: int, bands: int | None = None) -> None:
        super().__init__()
        mel = librosa.filters.mel(sr=16_000, n_fft=N_FFT, n_mels=mels)[:bands]
        self.bins = int(np.flatnonzero(mel.any(axis=0)).max()) + 1
        # Of half the bins one product costs less than all of them by a quick transform.
        few = self.bins <= N_FFT // 3
        self.spectrum = FewBins(N_FFT, self.bins) if few else PowerSpectrum(N_FFT)
        mel = np.asarray(mel[:, : self.bins if few else None], np.float32)
        self.register_buffer("mel", torch.from_numpy(mel), persistent=False)

    @property
    def highest_hz(self) -> float:
        """Frequency of the highest bin that a band hears."""
        return (self.bins - 1) * 16_000 / N_FFT

    def forward(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [batch, samples] to [batch, frames, mels], zero beyond; their count [batch]."""
        samples = int(audio.shape[1])
        audio = audio * time_mask(length, samples)
        # Reflected before the first sample, as Whisper does, and silent after the last: a row in a
        # longer buffer then hears the same.
        before = functional.pad(audio[:, None], (N_FFT // 2, 0), mode="reflect")[:, 0]
        frames = cut_windows(before, samples // HOP_SAMPLES, N_FFT, HOP_SAMPLES)
        power = torch.matmul(self.spectrum(frames), self.mel.T)
        count = torch.div(length, HOP_SAMPLES, rounding_mode="floor").clamp(min=1)
        mask = time_mask(count, int(power.shape[1]))[:, :, None]
        return scaled(torch.log10(power.clamp(min=1e-10)), mask), count


def scaled(level: Tensor, mask: Tensor | None) -> Tensor:
    """Levels of powers of ten, cut at 8 below the loudest of a row: [batch, frames, mels].

    `mask` float32 [batch, frames, 1] is 1 where a frame is valid; None if all are.
    """
    valid = level if mask is None else torch.where(mask > 0, level, -10.0)
    loudest = valid.amax(dim=(1, 2), keepdim=True)
    found = (torch.maximum(level, loudest - 8.0) + 4.0) / 4.0
    return found if mask is None else found * mask
