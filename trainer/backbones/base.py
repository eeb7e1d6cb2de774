"""What every encoder is: raw audio to the outputs of its layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.errors import TrainerError
from trainer.features import time_mask

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
    merged
        neighbouring steps that are one behind the lowest layer asked for, see `merge`.
    """

    name: str
    width: int
    first: int
    blocks: nn.ModuleList
    merged: int = 1

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

    def merge(self, count: int) -> None:
        """Let layers above the lowest asked for hear averages of `count` neighbouring steps.

        Their cost falls as much. Of Whisper's steps of 20 ms, each much like the next, little is
        lost behind its first layer; before it, recognition suffers.

        Raises
        ------
        TrainerError
            the encoder cannot do this.
        """
        if count > 1:
            raise TrainerError(f"model.merge_steps: {self.name} cannot merge steps; Whisper can.")


def merge_steps(x: Tensor, steps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Averages of `count` neighbouring valid steps.

    Parameters
    ----------
    x
        float32 [batch, steps, width].
    steps
        int64 [batch], those that are valid.

    Returns
    -------
    float32 [batch, merged steps, width], and the count of those that hold a valid one.
    """
    width, there = int(x.shape[2]), int(x.shape[1])
    spare = -there % count
    weight = functional.pad(time_mask(steps, there), (0, spare))
    weight = weight.reshape(-1, (there + spare) // count, count, 1)
    x = functional.pad(x, (0, 0, 0, spare)).reshape(-1, (there + spare) // count, count, width)
    mean = (x * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1.0)
    return mean, torch.div(steps + count - 1, count, rounding_mode="floor")


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
