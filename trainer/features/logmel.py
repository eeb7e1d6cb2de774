"""Log-mel front end as a torch module, so that training and serving compute the same thing.

The short-time Fourier transform is a strided convolution with the windowed cosine and sine
of each bin; the mel matrix is librosa's (Slaney's scale and normalisation). Everything
exports to plain ONNX operators.
"""

from __future__ import annotations

import librosa
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.features.base import Frontend, frame_count, time_mask
from trainer.features.settings import FrameSettings, LogMelSettings


def mel_matrix(settings: LogMelSettings | FrameSettings) -> Tensor:
    """librosa's mel filters: float32 [n_mels, n_fft // 2 + 1]."""
    filters = librosa.filters.mel(
        sr=settings.sample_rate_hz,
        n_fft=settings.n_fft,
        n_mels=settings.n_mels,
        fmin=settings.fmin_hz,
        fmax=settings.fmax_hz,
        htk=False,
        norm="slaney",
    )
    return torch.from_numpy(np.asarray(filters, np.float32))


class LogMel(Frontend):
    """Raw audio to normalised log-mel frames.

    Each row is scaled to unit RMS over its valid samples, so level and quantisation do not
    matter; `log_floor` is relative to that level. Then the masked mean and deviation over
    the row are removed: one pair a row (`level`), or the mean of each band apart (`band`),
    which also removes the colour of the channel.
    """

    basis: Tensor
    mel: Tensor

    def __init__(self, settings: LogMelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.dims = settings.n_mels
        self.is_summary = False
        self.n_fft = settings.n_fft
        self.hop_length = settings.hop_length
        mel = mel_matrix(settings)
        used = torch.nonzero(mel.sum(dim=0) > 0).squeeze(1)
        first, last = int(used[0]), int(used[-1]) + 1
        bins = torch.arange(first, last, dtype=torch.float64)
        time = torch.arange(settings.n_fft, dtype=torch.float64)
        angle = 2 * torch.pi * bins[:, None] * time[None, :] / settings.n_fft
        window = torch.hann_window(settings.n_fft, periodic=True, dtype=torch.float64)
        basis = torch.cat([torch.cos(angle) * window, torch.sin(angle) * window])
        self.register_buffer("basis", basis.float()[:, None, :], persistent=False)
        self.register_buffer("mel", mel[:, first:last].contiguous(), persistent=False)

    def power(self, audio: Tensor) -> Tensor:
        """Mel power as `librosa.feature.melspectrogram(center=False, power=2.0)` has it.

        Parameters
        ----------
        audio
            float32 [batch, samples].

        Returns
        -------
        float32 [batch, n_mels, frames].
        """
        spectrum = functional.conv1d(audio[:, None, :], self.basis, stride=self.settings.hop_length)
        real, imaginary = spectrum.chunk(2, dim=1)
        return torch.matmul(self.mel, real * real + imaginary * imaginary)

    def forward(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised features and their count of valid frames.

        Parameters
        ----------
        audio
            float32 [batch, samples] in [-1, 1].
        length
            int64 [batch], valid samples of each row; the rest is not looked at.

        Returns
        -------
        float32 [batch, n_mels, frames], zero beyond the valid frames, and int64 [batch].
        """
        # bfloat16 would put a noise floor 45 dB below the speech.
        with torch.autocast(audio.device.type, enabled=False):
            return self._features(audio, length)

    def _features(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        return self.normalise(*self.levels(audio, length))

    def levels(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of mel power before normalisation, beyond the valid frames too.

        Takes and returns what `forward` does.
        """
        audio = audio * time_mask(length, audio.shape[1])
        energy = (audio * audio).sum(dim=1) / torch.clamp(length, min=1).float()
        audio = audio * torch.rsqrt(energy + 1e-10)[:, None]
        levels = torch.log(self.power(audio) + self.settings.log_floor)
        return levels, frame_count(length, self.settings.n_fft, self.settings.hop_length)

    def normalise(self, levels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` makes of `levels`: float32 [batch, n_mels, frames], int64 [batch]."""
        mask = time_mask(frames, levels.shape[2])[:, None, :]
        valid = frames.float()[:, None, None]
        mean = (levels * mask).sum(dim=2, keepdim=True) / valid
        if self.settings.normalise == "level":
            mean = mean.mean(dim=1, keepdim=True)
        centred = (levels - mean) * mask
        square = (centred * centred).sum(dim=(1, 2), keepdim=True)
        deviation = torch.sqrt(square / (valid * self.settings.n_mels) + 1e-5)
        return centred / deviation, frames
