"""Convolutions over time that leave nothing beyond a row's valid steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.features import time_mask


def strided(count: Tensor, stride: int) -> Tensor:
    """Steps left of `count` by a stride, rounded up: int64 [batch]."""
    return torch.div(count + (stride - 1), stride, rounding_mode="floor")


def strided_size(size: int, stride: int) -> int:
    """`strided` of a plain number."""
    return -(-size // stride)


def max_pool_time(x: Tensor, width: int, stride: int) -> Tensor:
    """Maximum over `width` steps every `stride`; [batch, channels, steps], none negative.

    Zeros stand for what lies beyond either end, so padding and the end of the array are the same.
    """
    left = (width - 1) // 2
    padded = functional.pad(x, (left, width - 1 - left))
    return functional.max_pool1d(padded, width, stride)


class ConvBlock(nn.Module):
    """1-D convolution, batch norm, ReLU, max pooling, dropout; zero beyond the valid steps."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        pool: int,
        pool_stride: int,
        batch_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=not batch_norm)
        self.norm = nn.BatchNorm1d(outputs) if batch_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.pool, self.pool_stride = pool, pool_stride

    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [batch, inputs, steps], zero beyond `count` int64 [batch]; the same back."""
        x = torch.relu(self.norm(self.conv(x)))
        x = x * time_mask(count, x.shape[2])[:, None, :].to(x.dtype)
        if self.pool > 1 or self.pool_stride > 1:
            x = max_pool_time(x, self.pool, self.pool_stride)
            count = strided(count, self.pool_stride)
            x = x * time_mask(count, x.shape[2])[:, None, :].to(x.dtype)
        return self.dropout(x), count


class ConvStack(nn.Module):
    """`ConvBlock`s one after the other; `size` is the last one's channels, or `inputs`."""

    def __init__(
        self,
        inputs: int,
        channels: Sequence[int],
        kernel: int,
        pool: int,
        pool_stride: int,
        batch_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        blocks = []
        for outputs in channels:
            blocks.append(
                ConvBlock(inputs, outputs, kernel, pool, pool_stride, batch_norm, dropout)
            )
            inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.size = inputs

    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """As `ConvBlock`."""
        for block in self.blocks:
            x, count = block(x, count)
        return x, count
