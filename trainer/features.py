"""Log-mel front end as a torch module, so that training and serving compute the same thing.

The short-time Fourier transform is a strided convolution with the windowed cosine and sine
of each bin; the mel matrix is librosa's (Slaney's scale and normalisation). Everything
exports to plain ONNX operators.
"""

from __future__ import annotations

import librosa
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional


class FrontendSettings(BaseModel):
    """Constants of the front end, as the manifest carries them.

    `fmax_hz` below 4 kHz leaves only the band that telephone and wide-band audio share.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_rate_hz: int = 16_000
    n_fft: int = Field(512, ge=64, le=4096)
    hop_length: int = Field(200, ge=32)
    n_mels: int = Field(64, ge=8, le=160)
    fmin_hz: float = Field(60.0, ge=0)
    fmax_hz: float = Field(3800.0, gt=0)
    log_floor: float = Field(1e-5, gt=0)
    normalise: str = Field("level", pattern="^(level|band)$")

    @model_validator(mode="after")
    def _band(self) -> FrontendSettings:
        if not self.fmin_hz < self.fmax_hz <= self.sample_rate_hz / 2:
            raise ValueError("fmin_hz < fmax_hz <= half of sample_rate_hz does not hold")
        return self


def mel_matrix(settings: FrontendSettings) -> Tensor:
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


def frame_count(length: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Frames that lie wholly within `length` samples, at least one: int64 [batch]."""
    whole = torch.div(length - n_fft, hop_length, rounding_mode="floor") + 1
    return torch.clamp(whole, min=1)


def time_mask(count: Tensor, steps: int) -> Tensor:
    """1.0 for the first `count` steps of each row, else 0.0: float32 [batch, steps]."""
    return (torch.arange(steps, device=count.device)[None, :] < count[:, None]).float()


class LogMel(nn.Module):
    """Raw audio to normalised log-mel frames.

    Each row is scaled to unit RMS over its valid samples, so level and quantisation do not
    matter; `log_floor` is relative to that level. Then the masked mean and deviation over
    the row are removed: one pair a row (`level`), or the mean of each band apart (`band`),
    which also removes the colour of the channel.
    """

    basis: Tensor
    mel: Tensor

    def __init__(self, settings: FrontendSettings) -> None:
        super().__init__()
        self.settings = settings
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
        audio = audio * time_mask(length, audio.shape[1])
        energy = (audio * audio).sum(dim=1) / torch.clamp(length, min=1).float()
        audio = audio * torch.rsqrt(energy + 1e-10)[:, None]
        features = torch.log(self.power(audio) + self.settings.log_floor)
        frames = frame_count(length, self.settings.n_fft, self.settings.hop_length)
        mask = time_mask(frames, features.shape[2])[:, None, :]
        valid = frames.float()[:, None, None]
        mean = (features * mask).sum(dim=2, keepdim=True) / valid
        if self.settings.normalise == "level":
            mean = mean.mean(dim=1, keepdim=True)
        centred = (features - mean) * mask
        square = (centred * centred).sum(dim=(1, 2), keepdim=True)
        deviation = torch.sqrt(square / (valid * self.settings.n_mels) + 1e-5)
        return centred / deviation, frames
