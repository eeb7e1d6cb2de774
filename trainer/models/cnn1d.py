"""1-D CNN: convolutions along time, or along the vector of a summary."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from trainer.features import FrontendSettings, time_mask
from trainer.models.base import (
    AttentivePooling,
    EmotionModel,
    Kernel,
    NetworkSettings,
    Size,
    dense_head,
)
from trainer.models.convolution import ConvStack, strided_size


class Cnn1dSettings(NetworkSettings):
    """Each block is a convolution, batch norm, ReLU and max pooling; dense layers follow.

    `dropout` is that of the dense layers, `conv_dropout` that after each block.
    """

    kind: Literal["cnn1d"] = "cnn1d"
    channels: tuple[Size, ...] = Field((64, 128, 128, 192), min_length=1)
    kernel: Kernel = 5
    pool: int = Field(2, ge=1, le=16)
    pool_stride: int = Field(2, ge=1, le=16)
    batch_norm: bool = True
    conv_dropout: float = Field(0.1, ge=0, lt=1)
    dense: tuple[Size, ...] = (64,)


class Cnn1d(EmotionModel):
    """Convolutions over time with the features as channels, then attentive pooling.

    Of a summary (one vector a row) the convolutions run along the vector with one channel, as
    most public notebooks have it, and everything that comes out goes to the dense layers.
    """

    def __init__(self, settings: Cnn1dSettings, frontend: FrontendSettings, labels: int) -> None:
        super().__init__(settings, frontend)
        s, summary = settings, self.frontend.is_summary
        self.convolutions = ConvStack(
            1 if summary else self.frontend.dims,
            s.channels,
            s.kernel,
            s.pool,
            s.pool_stride,
            s.batch_norm,
            s.conv_dropout,
        )
        self.step_size = self.convolutions.size
        self.pooling: AttentivePooling | None = None
        if summary:
            positions = self.frontend.dims
            for _ in s.channels:
                positions = strided_size(positions, s.pool_stride)
            self.embedding_size = positions * self.step_size
        else:
            self.pooling = AttentivePooling(self.step_size)
            self.embedding_size = self.pooling.size
        self.dense = dense_head(self.embedding_size, s.dense, labels, s.dropout)

    def steps(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Of a summary the steps are places in the vector, all of them valid."""
        x, count = self.features(audio, length)
        if self.frontend.is_summary:
            x = x.transpose(1, 2)
            count = torch.full_like(count, self.frontend.dims)
        x, count = self.convolutions(x, count)
        return x.transpose(1, 2).float(), time_mask(count, x.shape[2])

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """See `EmotionModel.pool`."""
        if self.pooling is None:
            return x.flatten(1)
        pooled: Tensor = self.pooling(x, mask)
        return pooled

    def head(self, embedding: Tensor) -> Tensor:
        """See `EmotionModel.head`."""
        logits: Tensor = self.dense(embedding)
        return logits.float()
