"""wav2vec 2.0, HuBERT and WavLM, in the classes of `transformers`.

Sources: Baevski et al., wav2vec 2.0, 2020; Hsu et al., HuBERT, 2021; Chen et al., WavLM, 2022.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from trainer.backbones.base import SpeechEncoder, first_of, key_bias, norm_over_time, unit_variance
from trainer.features import time_mask


class Waveform(SpeechEncoder):
    """A `Wav2Vec2Model`, `HubertModel` or `WavLMModel`, attention and norms kept to valid steps.

    The base models normalise their first convolution over time, padding included, which is why
    `transformers` advises against masks for them; here the padding is left out of the norm.
    """

    first = 0

    def __init__(self, model: Any, name: str, normalise: bool) -> None:
        super().__init__()
        self.name = name
        self.normalise = normalise
        self.width = int(model.config.hidden_size)
        self.convolutions = model.feature_extractor.conv_layers
        self.projection = model.feature_projection
        self.position = model.encoder.pos_conv_embed
        self.norm = model.encoder.layer_norm
        self.blocks = model.encoder.layers
        # The large models are normalised before each layer and after the last.
        self.norm_last = bool(model.config.do_stable_layer_norm)
        self.layers_there_are = len(model.encoder.layers)
        self.is_wavlm = model.config.model_type == "wavlm"

    def _convolve(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [batch, steps, channels], and the count of steps within `length`."""
        x, steps = audio[:, None], length
        for layer in self.convolutions:
            x = layer.conv(x)
            kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
            steps = torch.div(steps - kernel, stride, rounding_mode="floor") + 1
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                mask = time_mask(steps.clamp(min=1), x.shape[2])
                with torch.autocast(x.device.type, enabled=False):
                    x = norm_over_time(x.float(), mask, norm)
            elif norm is not None:
                x = norm(x.transpose(1, 2)).transpose(1, 2)
            x = layer.activation(x)
        return x.transpose(1, 2), steps.clamp(min=1)

    def forward(
        self, audio: Tensor, length: Tensor, layers: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """See `SpeechEncoder.forward`; a step is 20 ms."""
        heard = time_mask(length, audio.shape[1])
        audio = unit_variance(audio, heard) if self.normalise else audio * heard
        x, steps = self._convolve(audio, length)
        x = first_of(self.projection(x))
        mask = time_mask(steps, x.shape[1])
        x = x * mask[:, :, None].to(x.dtype)
        x = x + self.position(x)
        if not self.norm_last:
            x = self.norm(x)
        found = [x] if 0 in layers else []
        bias: Tensor | None = None
        keys = mask if self.is_wavlm else key_bias(mask).to(x.dtype)
        for number, block in enumerate(self.blocks, start=1):
            if self.is_wavlm:
                with warnings.catch_warnings():
                    # of masks of two types, which is how `transformers` gives them
                    warnings.simplefilter("ignore", UserWarning)
                    x, bias = block(x, attention_mask=keys, position_bias=bias)[:2]
            else:
                x = first_of(block(x, attention_mask=keys))
            if number in layers:
                last = self.norm_last and number == self.layers_there_are
                found.append(self.norm(x) if last else x)
        return torch.stack(found, dim=1).float(), steps
