"""The recurrent network without padding.

On one core 1.55 ms a segment of 3 s, where the padded graph takes 2.0 ms and the resampling 0.2 ms
more: without masks, activations stay in the layout that onnxruntime's convolutions like, where each
mask cost a conversion there and back (0.2 ms), both directions of the GRU are one operator, and the
spectrum of 8 kHz costs half (0.15 ms less).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trainer.errors import TrainerError
from trainer.features import LogMel
from trainer.models import EmotionModel
from trainer.models.crnn import Crnn
from trainer.unpadded.narrowband import SAMPLE_RATE_HZ, frames_of, through_upsampling

# The resampler's filter reaches beyond the frame; what is cut off is 2e-6 of its energy.
_MARGIN = 16


class UnpaddedCrnn(nn.Module):
    """`audio` float32 [batch, samples] at 8 kHz, every sample valid, to logits.

    Parameters
    ----------
    model
        the network whose weights it takes, in evaluation mode.
    """

    basis: Tensor
    mel: Tensor

    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        if not isinstance(model, Crnn) or not isinstance(model.frontend, LogMel):
            raise TrainerError("only a CRNN on log-mel features has a graph without padding.")
        settings = model.frontend.settings
        if settings.sample_rate_hz != 2 * SAMPLE_RATE_HZ or settings.fmax_hz > SAMPLE_RATE_HZ / 2:
            raise TrainerError("its front end hears more than 8 kHz audio has.")
        if settings.n_fft % 2 or settings.hop_length % 2:
            raise TrainerError("its frames are no whole samples at 8 kHz.")
        self.hop = settings.hop_length // 2
        self.log_floor = settings.log_floor
        self.by_band = settings.normalise == "band"
        basis = through_upsampling(model.frontend.basis[:, 0].double().numpy(), _MARGIN)
        self.taps = basis.shape[1]
        self.register_buffer("basis", torch.from_numpy(basis.T.astype(np.float32).copy()))
        self.register_buffer("mel", model.frontend.mel.T.contiguous())
        self.convolutions = nn.ModuleList(_folded(block) for block in model.blocks)
        self.project = model.project
        self.gru = _both_directions(model.forward_gru, model.backward_gru)
        self.attention = model.attention
        self.classify = model.classify

    def forward(self, audio: Tensor) -> Tensor:
        """Logits float32 [batch, labels]."""
        x = self._features(audio)[:, None]
        for convolution in self.convolutions:
            x = torch.relu(convolution(x))
        batch, channels, rows, steps = x.shape
        x = self.project(x.permute(3, 0, 1, 2).reshape(steps, batch, channels * rows))
        x = self.gru(x)[0].transpose(0, 1)
        weight = torch.softmax(self.attention(x).squeeze(2), dim=1)[:, :, None]
        mean = (x * weight).sum(dim=1)
        away = x - mean[:, None, :]
        spread = (away * away * weight).sum(dim=1)
        logits: Tensor = self.classify(torch.cat([mean, torch.sqrt(spread + 1e-6)], dim=1))
        return logits

    def _features(self, audio: Tensor) -> Tensor:
        energy = (audio * audio).mean(dim=1)[:, None, None]
        # Silence before and after, as the resampler has it.
        frames = frames_of(audio, _MARGIN, _MARGIN, self.taps, self.hop)
        real, imaginary = torch.matmul(frames, self.basis).chunk(2, dim=2)
        power = torch.matmul(real * real + imaginary * imaginary, self.mel)
        # Powers are scaled to unit RMS, not the samples: a hundredth as many.
        levels = torch.log(power / (energy + 1e-10) + self.log_floor).transpose(1, 2)
        over = (2,) if self.by_band else (1, 2)
        centred = levels - levels.mean(dim=over, keepdim=True)
        return centred / torch.sqrt((centred * centred).mean(dim=(1, 2), keepdim=True) + 1e-5)


def _folded(block: nn.Module) -> nn.Module:
    """The convolution of a block, its batch norm folded into the weights."""
    convolution, norm = block.conv, block.norm
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm)


def _both_directions(ahead: nn.GRU, back: nn.GRU) -> nn.GRU:
    both = nn.GRU(ahead.input_size, ahead.hidden_size, bidirectional=True)
    with torch.no_grad():
        for name, value in ahead.named_parameters():
            getattr(both, name).copy_(value)
        for name, value in back.named_parameters():
            getattr(both, f"{name}_reverse").copy_(value)
    return both
