"""What every encoder is: raw audio to the outputs of its layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from trainer.errors import TrainerError

# Added to the attention's scores of keys beyond the valid steps; still a number in half precision.
_HIDDEN_KEY = -1e4


class SpeechEncoder(nn.Module, ABC):
    """A pretrained encoder over clips of any length that it was made for.

    A row's results depend on its own valid samples alone: neither on what lies beyond `length`
    nor on the other rows.

    Attributes
    ----------
    name
        where the weights come from.
    width
        size of a step.
    depth
        layers that there are, counted from 1; 0 is what enters the first.
    first
        lowest layer that can be asked for: 0 or 1.
    blocks
        the layers themselves, for fine-tuning of the last ones.
    stride
        every so many-th step is told, see `take_every`.
    """

    name: str
    width: int
    first: int
    blocks: nn.ModuleList
    stride: int = 1

    @property
    def depth(self) -> int:
        """Layers, counted from 1."""
        return len(self.blocks)

    @abstractmethod
    def forward(
        self, audio: Tensor, length: Tensor, layers: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Outputs of some layers.

        Parameters
        ----------
        audio
            float32 [batch, samples] at 16 kHz in [-1, 1].
        length
            int64 [batch], valid samples.
        layers
            in rising order.

        Returns
        -------
        float32 [batch, layers, steps, width], and the count of valid steps, int64 [batch].
        """

    def cut(self, layers: tuple[int, ...]) -> None:
        """Do without the layers above the highest of `layers`.

        Raises
        ------
        TrainerError
            there are not so many.
        """
        if min(layers) < self.first or max(layers) > self.depth:
            raise TrainerError(
                f"model.layers: {self.name} has layers {self.first} to {self.depth}, "
                f"not {', '.join(map(str, layers))}."
            )
        del self.blocks[max(layers) :]

    def take_every(self, stride: int) -> None:
        """Tell of every so many-th step only, and work out no more above the lowest layer told.

        The layer above that one still hears all steps, and those above it these few, so that
        neither what is left of it nor what enters it changes; their cost falls as much.

        Raises
        ------
        TrainerError
            the encoder cannot do this.
        """
        if stride > 1:
            raise TrainerError(f"model.stride: {self.name} tells of every step; Whisper need not.")


def first_of(output: Any) -> Tensor:
    """What a layer of `transformers` makes; in early releases of 5 a tuple with more."""
    made: Tensor = output[0] if isinstance(output, tuple) else output
    return made


def key_bias(mask: Tensor) -> Tensor:
    """What attention adds to its scores: mask float32 [batch, steps] to [batch, 1, 1, steps]."""
    return (1.0 - mask)[:, None, None, :] * _HIDDEN_KEY


def unit_variance(audio: Tensor, mask: Tensor) -> Tensor:
    """Rows of audio to mean 0 and variance 1 over their valid samples, zero beyond.

    Parameters
    ----------
    audio, mask
        float32 [batch, samples].
    """
    count = mask.sum(dim=1, keepdim=True).clamp(min=1.0)
    centred = (audio - (audio * mask).sum(dim=1, keepdim=True) / count) * mask
    variance = (centred * centred).sum(dim=1, keepdim=True) / count
    return centred * torch.rsqrt(variance + 1e-7)


def norm_over_time(x: Tensor, mask: Tensor, norm: nn.GroupNorm) -> Tensor:
    """A group norm whose mean and deviation are those of the valid steps.

    Parameters
    ----------
    x
        float32 [batch, channels, steps].
    mask
        float32 [batch, steps].
    """
    batch, channels, steps = x.shape
    grouped = x.reshape(batch, norm.num_groups, channels // norm.num_groups, steps)
    weight = mask[:, None, None, :]
    size = weight.sum(dim=(2, 3), keepdim=True).clamp(min=1.0) * (channels // norm.num_groups)
    centred = grouped - (grouped * weight).sum(dim=(2, 3), keepdim=True) / size
    variance = (centred * centred * weight).sum(dim=(2, 3), keepdim=True) / size
    normed = (centred * torch.rsqrt(variance + norm.eps)).reshape(batch, channels, steps)
    return normed * norm.weight[:, None] + norm.bias[:, None]
