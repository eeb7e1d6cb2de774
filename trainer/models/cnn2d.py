"""2-D CNN: the feature map as a picture, attentive pooling over time."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from trainer.features import FrontendSettings, time_mask
from trainer.models.base import (
    AttentivePooling,
    EmotionModel,
    NetworkSettings,
    Size,
    dense_head,
    require_sequence,
)
from trainer.models.convolution import strided, strided_size


class Cnn2dSettings(NetworkSettings):
    """Each block is `depth` 3x3 convolutions, then 2x2 max pooling.

    The feature axis is halved in every block, time in those that `time_pools` gives 2.
    """

    kind: Literal["cnn2d"] = "cnn2d"
    channels: tuple[Size, ...] = Field((32, 64, 96, 128), min_length=1)
    time_pools: tuple[Literal[1, 2], ...] = (2, 2, 2, 1)
    depth: int = Field(1, ge=1, le=4)
    batch_norm: bool = True
    conv_dropout: float = Field(0.0, ge=0, lt=1)
    projection: Size = 192
    dense: tuple[Size, ...] = ()

    @model_validator(mode="after")
    def _as_many(self) -> Cnn2dSettings:
        if len(self.channels) != len(self.time_pools):
            raise ValueError("channels and time_pools differ in number")
        return self


class _Block(nn.Module):
    """Convolutions with batch norm and ReLU, max pooling, zero beyond the valid steps."""

    def __init__(self, inputs: int, outputs: int, time_pool: int, settings: Cnn2dSettings) -> None:
        super().__init__()
        norm = settings.batch_norm
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs if i == 0 else outputs, outputs, 3, padding=1, bias=not norm)
            for i in range(settings.depth)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(outputs) if norm else nn.Identity() for _ in range(settings.depth)
        )
        self.dropout = nn.Dropout(settings.conv_dropout)
        self.time_pool = time_pool

    def forward(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = _masked(torch.relu(norm(conv(x))), frames)
        # What is pooled is not negative, so zeros beyond an odd end change nothing.
        x = functional.pad(x, (0, self.time_pool - 1, 0, 1))
        x = functional.max_pool2d(x, (2, self.time_pool))
        frames = strided(frames, self.time_pool)
        return self.dropout(x), frames


def _masked(x: Tensor, frames: Tensor) -> Tensor:
    return x * time_mask(frames, x.shape[3])[:, None, None, :].to(x.dtype)


class Cnn2d(EmotionModel):
    """Raw audio to logits without recurrence."""

    def __init__(self, settings: Cnn2dSettings, frontend: FrontendSettings, labels: int) -> None:
        super().__init__(settings, frontend)
        require_sequence(settings.kind, self.frontend)
        blocks = []
        inputs, rows = 1, self.frontend.dims
        for outputs, time_pool in zip(settings.channels, settings.time_pools, strict=True):
            blocks.append(_Block(inputs, outputs, time_pool, settings))
            inputs, rows = outputs, strided_size(rows, 2)
        self.blocks = nn.ModuleList(blocks)
        self.project = nn.Sequential(
            nn.Linear(inputs * rows, settings.projection),
            nn.LayerNorm(settings.projection),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
        )
        self.step_size = settings.projection
        self.pooling = AttentivePooling(self.step_size)
        self.embedding_size = self.pooling.size
        self.dense = dense_head(self.embedding_size, settings.dense, labels, settings.dropout)

    def steps(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """See `EmotionModel.steps`."""
        features, frames = self.features(audio, length)
        x = features[:, None]
        for block in self.blocks:
            x, frames = block(x, frames)
        batch, channels, rows, steps = x.shape
        x = self.project(x.permute(0, 3, 1, 2).reshape(batch, steps, channels * rows))
        return x.float(), time_mask(frames, steps)

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """See `EmotionModel.pool`."""
        pooled: Tensor = self.pooling(x, mask)
        return pooled

    def head(self, embedding: Tensor) -> Tensor:
        """See `EmotionModel.head`."""
        logits: Tensor = self.dense(embedding)
        return logits.float()
