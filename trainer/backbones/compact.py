"""A small encoder that was taught to say what a large one's lower layers say.

It begins as a piece of its teacher: the same features and convolutions, though every so many steps
of 20 ms only, and the lowest layers with the narrow part of their hidden units that matters most.
Training then makes it say, by one linear map a layer, what the teacher's layers say at those steps
(`trainer.compact`). Steps are left out, never averaged: each is then what the teacher hears too,
where averages would be sounds that nobody makes.

Sources: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022 (the
teacher); Chang et al., DistilHuBERT, 2022 (a student made of a teacher's lowest layers, with one
map for each of those that it predicts).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from trainer.backbones.base import SpeechEncoder, key_bias
from trainer.backbones.transformer import Layer
from trainer.backbones.whisper_mel import WhisperMel
from trainer.errors import TrainerError
from trainer.features import time_mask
from trainer.features.spectrum import cut_windows
from trainer.saving import write_checkpoint

_FRAMES_A_STEP = 2

# Frames that both convolutions together hear for a step.
_REACH = 5


class CompactSettings(BaseModel):
    """Sizes of the encoder.

    Attributes
    ----------
    mels, width, head_size
        as the teacher has them.
    bands
        of the mels, how many of the lowest it hears.
    heads
        of attention.
    depth
        layers.
    hidden
        units in the middle of a layer's dense part.
    stride
        of the teacher's steps every how many-th there is.
    layers
        the teacher's layers that it tells of, rising.
    positions
        steps that there may be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mels: int = Field(80, ge=8)
    width: int = Field(384, ge=8)
    heads: int = Field(6, ge=1)
    head_size: int = Field(64, ge=1)
    bands: int = Field(80, ge=1)
    depth: int = Field(2, ge=1)
    hidden: int = Field(384, ge=8)
    stride: int = Field(2, ge=1)
    layers: tuple[int, ...] = (1, 2, 3)
    positions: int = Field(750, ge=1)


class Compact(SpeechEncoder):
    """Raw audio to what the teacher's layers would say.

    A layer is asked for by the teacher's number of it; `blocks` are the encoder's own.
    """

    positions: Tensor

    def __init__(self, settings: CompactSettings, name: str = "compact") -> None:
        super().__init__()
        self.settings, self.name = settings, name
        self.width, self.first = settings.width, min(settings.layers)
        self.told = settings.layers
        self.log_mel = WhisperMel(settings.mels, settings.bands)
        self.conv1 = nn.Conv1d(settings.bands, settings.width, 3, padding=1)
        self.conv2 = nn.Conv1d(
            settings.width, settings.width, 3, stride=_FRAMES_A_STEP * settings.stride, padding=1
        )
        self.register_buffer("positions", torch.zeros(settings.positions, settings.width))
        self.blocks = nn.ModuleList(
            Layer(settings.width, settings.heads, settings.head_size, settings.hidden)
            for _ in range(settings.depth)
        )
        self.maps = nn.ModuleList(
            nn.Linear(settings.width, settings.width) for _ in settings.layers
        )

    @property
    def depth(self) -> int:
        """The highest of the teacher's layers that it tells of."""
        return max(self.told)

    def cut(self, layers: tuple[int, ...]) -> None:
        """See `SpeechEncoder.cut`; maps of other layers go."""
        unknown = sorted(set(layers) - set(self.told))
        if unknown:
            raise TrainerError(
                f"model.layers: {self.name} tells of the layers {_listed(self.told)}, "
                f"not {_listed(unknown)}."
            )
        self.maps = nn.ModuleList(self.maps[self.told.index(layer)] for layer in layers)
        self.told = layers

    def forward(
        self, audio: Tensor, length: Tensor, layers: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """See `SpeechEncoder.forward`."""
        with torch.autocast(audio.device.type, enabled=False):
            mel, frames = self.log_mel(audio, length)
        told, steps = self.tell(mel, frames)
        if layers != self.told:
            told = told[:, [self.told.index(layer) for layer in layers]]
        return told.float(), steps

    def tell(self, mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [batch, frames, mels] and counts to [batch, layers told, steps, width], steps."""
        steps = compact_steps(frames, self.settings.stride)
        return self.say(mel, frames, steps).transpose(1, 2), steps

    def say(self, mel: Tensor, frames: Tensor | None, steps: Tensor) -> Tensor:
        """What the teacher's layers would say, float32 [batch, steps, layers told, width].

        Parameters
        ----------
        mel
            float32 [batch, frames, mels].
        frames
            int64 [batch], those that are valid; None: all, in a graph whose count of frames is
            left open.
        steps
            int64 [batch], those that are valid; a single number where all frames are.
        """
        x = self._convolved(mel, frames, steps)
        width, count = int(x.shape[2]), x.shape[1]
        keys, batch = None, x.shape[0]
        if frames is not None:
            # Numbers where they are known, so that an exported graph has fewer operations.
            batch, count = -1, int(count)
            keys = key_bias(time_mask(steps, count)).to(x.dtype)
        x = x.reshape(-1, width)
        for block in self.blocks:
            x = block(x, batch, count, keys)
        maps = [told for told in self.maps if isinstance(told, nn.Linear)]
        weight = torch.cat([told.weight for told in maps])
        bias = torch.cat([told.bias for told in maps])
        said = functional.linear(x, weight, bias)
        return said.reshape(batch, count, len(self.maps), width)

    def _convolved(self, mel: Tensor, frames: Tensor | None, steps: Tensor) -> Tensor:
        """Both convolutions as products of matrices.

        Of the first, only those outputs are made that the second uses, three at each of its
        steps. One core, a segment of 3 s: 0.5 ms, and 0.9 ms as convolutions.
        """
        there = mel.shape[1] if frames is None else int(mel.shape[1])
        bands, hop = self.settings.bands, _FRAMES_A_STEP * self.settings.stride
        # A number, or where the count of frames is open one that the graph works out.
        count: Any = steps if frames is None else -(-there // hop)
        before = functional.pad(mel, (0, 0, _REACH // 2, 0)).flatten(1)
        around = cut_windows(before, count, _REACH * bands, hop * bands)
        three = torch.stack([around[:, :, i * bands : (i + 3) * bands] for i in range(3)], dim=2)
        first, second = self.conv1, self.conv2
        x = functional.linear(three, first.weight.transpose(1, 2).flatten(1), first.bias)
        # What the second convolution has beyond the ends is nothing, not the first's bias.
        place = hop * torch.arange(count)[:, None] + torch.arange(-1, 2)
        last = there if frames is None else frames[:, None, None]
        mask = ((place >= 0) & (place < last)).to(x.dtype)[..., None]
        x = (functional.gelu(x) * mask).flatten(2)
        x = functional.linear(x, second.weight.transpose(1, 2).flatten(1), second.bias)
        return functional.gelu(x) + self.positions[:count]


def compact_steps(frames: Tensor, stride: int) -> Tensor:
    """Steps that are valid of so many frames of 10 ms, int64 [batch]."""
    heard = torch.div(frames, _FRAMES_A_STEP, rounding_mode="floor").clamp(min=1)
    return torch.div(heard + stride - 1, stride, rounding_mode="floor")


def save_compact(encoder: Compact, path: Path, **further: object) -> None:
    """Write an encoder, and what else is to be known of it. Weights are rounded to half precision.

    Raises
    ------
    TrainerError
        the file cannot be written.
    """
    content = {
        "settings": encoder.settings.model_dump(),
        "model": {name: values.half() for name, values in encoder.state_dict().items()},
        **further,
    }
    write_checkpoint(path, content)


def load_compact(path: Path) -> Compact:
    """An encoder that `serd-trainer encoder train` made.

    Raises
    ------
    TrainerError
        there is no such file, or it is none of those.
    """
    try:
        content = torch.load(path, weights_only=True)
        encoder = Compact(CompactSettings.model_validate(content["settings"]), path.name)
        encoder.load_state_dict(content["model"])
    except OSError as error:
        raise TrainerError(
            f"model.encoder: {path} cannot be read: {error.strerror}. "
            "`serd-trainer encoder train` makes such a file."
        ) from None
    # Torch and pickle raise whatever they meet in a file that is something else.
    except Exception as error:
        raise TrainerError(f"model.encoder: {path} is no compact encoder: {error}") from None
    return encoder


def _listed(numbers: Any) -> str:
    return ", ".join(map(str, numbers))
