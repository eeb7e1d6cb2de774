"""From samples to log mel bands, two windows of 32 ms a frame.

A frame of 32 ms is heard with the 16 ms before it (the context): one window over the context and
the frame's first half, one over the whole frame. Both rates share the bands below 3.8 kHz, equal
in value for equal sound, so that one network hears both; 16 kHz has bands above of its own.
"""

from __future__ import annotations

import librosa
import numpy as np
import torch
from torch import Tensor, nn

from serd.types import frame_samples
from trainer.vad.settings import FrontendSettings

WINDOWS = 2
LOG_FLOOR = 1e-9
"""Power per sample below which a band counts as empty: -90 dB of full scale."""

_LOWEST_HZ = 60.0
_SHARED_HZ = 3800.0
_HIGHEST_HZ = 7600.0


def context_samples(rate_hz: int) -> int:
    """Samples of the past that a frame is heard with."""
    return frame_samples(rate_hz) // 2


def bands(settings: FrontendSettings, rate_hz: int) -> int:
    """Mel bands of a window at a rate."""
    return settings.low + (settings.high if rate_hz == 16_000 else 0)


class Frontend(nn.Module):
    """Log mel bands of frames at one rate.

    Windows are symmetric about their middle (a sine squared) and the Fourier transform is taken
    about it, so that cosine and sine parts depend on sums and differences of mirrored samples:
    half the multiplications.

    Buffers: `cosine`, `sine` float32 [frame / 2, bins], `mel` float32 [bins, bands]. A band is
    the mean power of its bins, scaled so that white noise of variance v over the telephone band
    gives v at either rate.
    """

    cosine: Tensor
    sine: Tensor
    mel: Tensor

    def __init__(self, settings: FrontendSettings, rate_hz: int) -> None:
        super().__init__()
        self.size = frame_samples(rate_hz)
        self.context = context_samples(rate_hz)
        filters = [self._filters(rate_hz, settings.low, _LOWEST_HZ, _SHARED_HZ)]
        if bands(settings, rate_hz) > settings.low:
            filters.append(self._filters(rate_hz, settings.high, _SHARED_HZ, _HIGHEST_HZ))
        mel = np.concatenate(filters)
        used = np.flatnonzero(mel.sum(axis=0))
        bins = np.arange(used[0], used[-1] + 1)
        time = np.arange(self.size // 2)
        window = np.sin(np.pi * (time + 0.5) / self.size) ** 2
        angle = 2 * np.pi * np.outer(time - (self.size - 1) / 2, bins) / self.size
        scale = 1 / np.sqrt(2 * np.sum(window**2) * rate_hz / 8000)
        for name, part in (("cosine", np.cos(angle)), ("sine", np.sin(angle))):
            weighted = scale * window[:, None] * part
            self.register_buffer(name, torch.from_numpy(weighted).float(), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel[:, bins].T.copy()).float(), False)

    def _filters(
        self, rate_hz: int, count: int, low_hz: float, high_hz: float
    ) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        filters = librosa.filters.mel(
            sr=rate_hz, n_fft=self.size, n_mels=count, fmin=low_hz, fmax=high_hz, norm=None
        )
        return np.asarray(filters / filters.sum(axis=1, keepdims=True), np.float64)

    def windows(self, windows: Tensor) -> Tensor:
        """float32 [..., frame] to log mel bands, float32 [..., bands]."""
        half = self.size // 2
        front, back = windows[..., :half], windows[..., half:].flip(-1)
        cosine = (front + back) @ self.cosine
        sine = (front - back) @ self.sine
        return torch.log((cosine * cosine + sine * sine) @ self.mel + LOG_FLOOR)

    def forward(self, audio: Tensor) -> Tensor:
        """Frames with their contexts: float32 [batch, context + frame], in [-1, 1], to
        float32 [batch, 2 * bands], the earlier window first.
        """
        both = audio.unfold(1, self.size, self.context)
        return self.windows(both).flatten(1)

    def recording(self, audio: Tensor) -> Tensor:
        """Whole recordings from a silent context: float32 [batch, frames * frame] to
        float32 [batch, frames, 2 * bands].
        """
        padded = torch.nn.functional.pad(audio, (self.context, 0))
        every = self.windows(padded.unfold(1, self.size, self.context))
        frames = every.shape[1] // WINDOWS
        return every[:, : frames * WINDOWS].reshape(len(audio), frames, -1)
