"""Features of a power spectrum: mel bands, chroma, contrast and tonnetz, as librosa has them."""

from __future__ import annotations

import librosa
import numpy as np
import torch
from torch import Tensor, nn

CHROMA = 12
CONTRAST_BANDS = 6
CONTRAST_FMIN_HZ = 200.0
CONTRAST_QUANTILE = 0.02
_AMIN = 1e-10
_TOP_DB = 80.0


def power_to_db(power: Tensor, mask: Tensor) -> Tensor:
    """Decibels, at most 80 below the largest value of the row's valid frames.

    Parameters
    ----------
    power
        float32 [batch, frames, rows].
    mask
        float32 [batch, frames, 1], 1.0 where a frame is valid.
    """
    decibels = 10.0 * torch.log10(torch.clamp(power, min=_AMIN))
    # -1e4 lies below every decibel that `_AMIN` lets through.
    valid = decibels * mask - 1e4 * (1.0 - mask)
    return torch.maximum(decibels, torch.amax(valid, dim=(1, 2), keepdim=True) - _TOP_DB)


class MelDecibels(nn.Module):
    """Mel bands in decibels: `power_to_db(melspectrogram(...))`."""

    weight: Tensor

    def __init__(self, mel: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", mel.T.contiguous(), persistent=False)

    def forward(self, power: Tensor, mask: Tensor) -> Tensor:
        """Power spectrum float32 [batch, frames, bins] to [batch, frames, n_mels]."""
        return power_to_db(torch.matmul(power, self.weight), mask)


class Chroma(nn.Module):
    """Energy of the twelve pitch classes: `chroma_stft(tuning=0)`, the largest of a frame 1."""

    weight: Tensor

    def __init__(self, sample_rate_hz: int, n_fft: int) -> None:
        super().__init__()
        filters = librosa.filters.chroma(sr=sample_rate_hz, n_fft=n_fft, n_chroma=CHROMA, tuning=0)
        weight = torch.from_numpy(np.ascontiguousarray(filters.T, np.float32))
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, power: Tensor) -> Tensor:
        """Power spectrum float32 [batch, frames, bins] to [batch, frames, 12]."""
        raw = torch.matmul(power, self.weight)
        return _scaled(raw, torch.amax(raw, dim=2, keepdim=True))


class Tonnetz(nn.Module):
    """Tonal centroids: `tonnetz(chroma=...)` (Harte, Sandler and Gasser, 2006)."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Circles of fifths, minor and major thirds: radius, and half-turns a semitone.
        radius = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.5, 0.5], dtype=torch.float64)
        step = torch.tensor([7 / 6, 7 / 6, 3 / 2, 3 / 2, 2 / 3, 2 / 3], dtype=torch.float64)
        quarter = torch.tensor([0.5, 0.0] * 3, dtype=torch.float64)
        pitch = torch.arange(CHROMA, dtype=torch.float64)
        weight = radius * torch.cos(torch.pi * (pitch[:, None] * step - quarter))
        self.register_buffer("weight", weight.float(), persistent=False)

    def forward(self, chroma: Tensor) -> Tensor:
        """Chroma float32 [batch, frames, 12] to [batch, frames, 6]."""
        return torch.matmul(_scaled(chroma, chroma.sum(dim=2, keepdim=True)), self.weight)


def _scaled(values: Tensor, norm: Tensor) -> Tensor:
    """Values over their norm; librosa leaves those alone whose norm is no normal number."""
    tiny = torch.finfo(torch.float32).tiny
    return values / torch.where(norm < tiny, torch.ones_like(norm), norm)


class Contrast(nn.Module):
    """Level of the peaks over the valleys of octave bands: `spectral_contrast()`.

    Source: Jiang et al., Music type classification by spectral contrast feature, 2002. Of
    the widest band a dozen bins count, so they are picked out, not sorted.
    """

    def __init__(self, sample_rate_hz: int, n_fft: int) -> None:
        super().__init__()
        frequency = np.arange(n_fft // 2 + 1) * sample_rate_hz / n_fft
        edges = [0.0, *(CONTRAST_FMIN_HZ * 2.0**k for k in range(CONTRAST_BANDS + 1))]
        self.bands: list[tuple[int, int, int]] = []
        for k in range(CONTRAST_BANDS + 1):
            inside = np.flatnonzero((frequency >= edges[k]) & (frequency <= edges[k + 1]))
            # librosa's bands take in the bin below them, and give up their last.
            first = int(inside[0]) - (k > 0)
            last = int(inside[-1]) + 1 if k < CONTRAST_BANDS else len(frequency)
            chosen = max(1, int(np.rint(CONTRAST_QUANTILE * (last - first))))
            self.bands.append((first, last - (k < CONTRAST_BANDS), chosen))

    def forward(self, power: Tensor, mask: Tensor) -> Tensor:
        """Power spectrum float32 [batch, frames, bins] to [batch, frames, 7]."""
        peaks: list[Tensor] = []
        valleys: list[Tensor] = []
        for first, last, chosen in self.bands:
            magnitude = torch.sqrt(power[:, :, first:last])
            for found, largest in ((peaks, True), (valleys, False)):
                values, _ = torch.topk(magnitude, chosen, dim=2, largest=largest, sorted=False)
                found.append(values.mean(dim=2, keepdim=True))
        peak, valley = torch.cat(peaks, dim=2), torch.cat(valleys, dim=2)
        return power_to_db(peak, mask) - power_to_db(valley, mask)
