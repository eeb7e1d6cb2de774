"""Whisper's features, for its encoder and for those that were made from it.

Source: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022.
"""

from __future__ import annotations

import librosa
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.features import time_mask
from trainer.features.spectrum import PowerSpectrum, cut_frames

N_FFT, HOP_SAMPLES = 400, 160


class WhisperMel(nn.Module):
    """Log-mel levels of 16 kHz audio, every 10 ms.

    Parameters
    ----------
    mels
        bands, up to 8 kHz.
    """

    mel: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.spectrum = PowerSpectrum(N_FFT)
        mel = librosa.filters.mel(sr=16_000, n_fft=N_FFT, n_mels=mels)
        self.register_buffer("mel", torch.from_numpy(np.asarray(mel, np.float32)), persistent=False)

    def forward(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [batch, samples] to [batch, mels, frames], zero beyond; their count [batch]."""
        audio = audio * time_mask(length, audio.shape[1])
        # Reflected before the first sample, as Whisper does, and silent after the last: a row
        # in a longer buffer then hears the same.
        before = functional.pad(audio[:, None], (N_FFT // 2, 0), mode="reflect")[:, 0]
        frames = cut_frames(functional.pad(before, (0, N_FFT // 2)), N_FFT, HOP_SAMPLES)[:, :-1]
        power = torch.matmul(self.spectrum(frames), self.mel.T).transpose(1, 2)
        level = torch.log10(power.clamp(min=1e-10))
        count = torch.div(length, HOP_SAMPLES, rounding_mode="floor").clamp(min=1)
        mask = time_mask(count, level.shape[2])[:, None, :]
        loudest = torch.where(mask > 0, level, -10.0).amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(level, loudest - 8.0) + 4.0) / 4.0 * mask, count
