"""CRNN: convolutions over the feature map, a bidirectional GRU, masked attention pooling."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trainer.features import FrontendSettings, time_mask
from trainer.models.base import (
    EmotionModel,
    NetworkSettings,
    attentive_statistics,
    require_sequence,
)
from trainer.models.convolution import strided
from trainer.models.recurrent import turn


class CrnnSettings(NetworkSettings):
    """Size of the network.

    Each convolution block halves the feature axis; `time_strides` says which also halve time.
    """

    kind: Literal["crnn"] = "crnn"
    channels: tuple[int, ...] = (32, 64, 96, 128)
    time_strides: tuple[Literal[1, 2], ...] = (2, 2, 1, 2)
    projection: int = Field(192, ge=8)
    hidden: int = Field(128, ge=8)

    @model_validator(mode="after")
    def _as_many(self) -> CrnnSettings:
        if len(self.channels) != len(self.time_strides):
            raise ValueError("channels and time_strides differ in number")
        return self


class _Block(nn.Module):
    """3x3 convolution, batch norm, ReLU, and zeros again beyond the valid steps."""

    def __init__(self, inputs: int, outputs: int, time_stride: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=(2, time_stride), padding=kernel // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.time_stride = time_stride

    def forward(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.norm(self.conv(x)))
        frames = strided(frames, self.time_stride)
        mask = time_mask(frames, x.shape[3])
        return x * mask[:, None, None, :].to(x.dtype), frames


class Crnn(EmotionModel):
    """Raw audio to logits.

    A row's logits depend on its own valid samples alone: features, activations and the
    attention are masked by `length`, and the backward direction of the GRU runs over the row
    turned about its own last valid step.
    """

    def __init__(self, settings: CrnnSettings, frontend: FrontendSettings, labels: int) -> None:
        super().__init__(settings, frontend)
        require_sequence(settings.kind, self.frontend)
        blocks: list[_Block] = []
        inputs, rows = 1, self.frontend.dims
        for i, (outputs, stride) in enumerate(
            zip(settings.channels, settings.time_strides, strict=True)
        ):
            blocks.append(_Block(inputs, outputs, stride, kernel=5 if i == 0 else 3))
            inputs, rows = outputs, (rows + 1) // 2
        self.blocks = nn.ModuleList(blocks)
        self.project = nn.Sequential(
            nn.Linear(inputs * rows, settings.projection),
            nn.LayerNorm(settings.projection),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
        )
        self.forward_gru = nn.GRU(settings.projection, settings.hidden, batch_first=True)
        self.backward_gru = nn.GRU(settings.projection, settings.hidden, batch_first=True)
        width = 2 * settings.hidden
        self.attention = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, 1))
        self.step_size = width
        self.embedding_size = 2 * width
        self.dropout = nn.Dropout(settings.dropout)
        self.classify = nn.Linear(self.embedding_size, labels)

    def steps(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """See `EmotionModel.steps`."""
        features, frames = self.features(audio, length)
        x = features[:, None]
        for block in self.blocks:
            x, frames = block(x, frames)
        batch, channels, rows, steps = x.shape
        x = self.project(x.permute(0, 3, 1, 2).reshape(batch, steps, channels * rows))
        ahead, _ = self.forward_gru(x)
        back, _ = self.backward_gru(turn(x, frames))
        return torch.cat([ahead, turn(back, frames)], dim=2).float(), time_mask(frames, steps)

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention-weighted mean and deviation over the valid steps."""
        return attentive_statistics(x, mask, self.attention(x))

    def head(self, embedding: Tensor) -> Tensor:
        """See `EmotionModel.head`."""
        logits: Tensor = self.classify(self.dropout(embedding))
        return logits
