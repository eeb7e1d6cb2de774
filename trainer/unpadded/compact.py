"""A backbone on a compact encoder, without padding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.backbones.compact import Compact, compact_steps
from trainer.backbones.whisper_mel import HOP_SAMPLES, N_FFT, fourier_basis, scaled
from trainer.errors import TrainerError
from trainer.models.backbone import Backbone
from trainer.unpadded.narrowband import SAMPLE_RATE_HZ, frames_of, through_upsampling

# Levels on a logarithmic scale without a floor, as Whisper's, show more than others of what is cut
# off the resampler's filter: with 16 scores differed by 1.5e-3, with 32 by 1.2e-4.
_MARGIN = 32


class UnpaddedCompact(nn.Module):
    """`audio` float32 [batch, samples] at 8 kHz, every sample valid, to logits.

    Parameters
    ----------
    model
        the network whose weights it takes, in evaluation mode.
    encoder
        its encoder.
    """

    basis: Tensor
    mel: Tensor

    def __init__(self, model: Backbone, encoder: Compact) -> None:
        super().__init__()
        if not model.settings.is_embedding_fixed or model.settings.normalise:
            raise TrainerError("only a compact encoder as it is has a graph without padding.")
        self.model, self.encoder = model, encoder
        if encoder.log_mel.highest_hz > SAMPLE_RATE_HZ / 2:
            raise TrainerError("its front end hears more than 8 kHz audio has.")
        bins = encoder.log_mel.bins
        basis = fourier_basis(N_FFT, bins).T
        plain = through_upsampling(basis, _MARGIN)
        self.taps = plain.shape[1]
        self.register_buffer("basis", torch.from_numpy(plain.T.copy()))
        # Of the first frames, which begin before the first sample.
        self.early = range(-N_FFT // 2, 0, HOP_SAMPLES)
        for number, first in enumerate(self.early):
            folded = through_upsampling(_reflected(basis, -first), _MARGIN)
            folded = folded[:, _MARGIN:]
            self.register_buffer(f"early_{number}", torch.from_numpy(folded.T.copy()))
        self.register_buffer("mel", encoder.log_mel.mel[:, :bins].T.contiguous())

    def forward(self, audio: Tensor) -> Tensor:
        """Logits float32 [batch, labels]."""
        mel = self._features(audio)
        # The last step that there is room for may lie beyond the valid ones.
        steps = compact_steps(torch.tensor(mel.shape[1]), self.encoder.settings.stride)
        told = self.encoder.say(mel, None, steps).flatten(2)
        mean = told.mean(dim=1)
        away = told - mean[:, None]
        spread = (away * away).mean(dim=1)
        return self.model.head(torch.cat([mean, torch.sqrt(spread + 1e-6)], dim=1))

    def _features(self, audio: Tensor) -> Tensor:
        hop, beyond = HOP_SAMPLES // 2, N_FFT // 4 + _MARGIN
        longer = functional.pad(audio, (0, beyond))
        found = []
        for number in range(len(self.early)):
            early = self.get_buffer(f"early_{number}")
            found.append(torch.matmul(longer[:, None, : early.shape[0]], early))
        # Where the first frame begins that lies behind the first sample as a whole.
        start = (self.early[-1] + HOP_SAMPLES) // 2 - _MARGIN
        late = frames_of(audio[:, start:], 0, beyond, self.taps, hop)
        found.append(torch.matmul(late, self.basis))
        spectrum = torch.cat(found, dim=1)[:, : audio.shape[1] // hop]
        real, imaginary = spectrum.chunk(2, dim=2)
        power = torch.matmul(real * real + imaginary * imaginary, self.mel)
        return scaled(torch.log10(power.clamp(min=1e-10)), None)


def _reflected(basis: npt.NDArray[np.float64], before: int) -> npt.NDArray[np.float64]:
    """What falls on the `before` samples before the first, laid onto those they mirror.

    [rows, n] of a frame to [rows, n - before], and one of nothing more if that is odd.
    """
    rows, taps = basis.shape
    width = max(taps - before, before + 1)
    laid = np.zeros((rows, width + width % 2))
    laid[:, : taps - before] = basis[:, before:]
    laid[:, 1 : before + 1] += basis[:, :before][:, ::-1]
    return laid
