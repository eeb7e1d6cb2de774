"""Conformer: self-attention for the whole row, convolution for its detail.

Source: Gulati et al., Conformer: Convolution-augmented Transformer for Speech Recognition, 2020;
with sinusoidal positions added at the entrance in place of relative ones.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from trainer.features import FrontendSettings, time_mask
from trainer.models.base import (
    AttentivePooling,
    EmotionModel,
    Kernel,
    NetworkSettings,
    Size,
    dense_head,
    require_sequence,
)
from trainer.models.convolution import strided


class ConformerSettings(NetworkSettings):
    """Two convolutions that each halve time, then `blocks` blocks of size `width`.

    `convolution` false leaves the convolution modules out: a plain transformer.
    """

    kind: Literal["conformer"] = "conformer"
    width: int = Field(96, ge=8, le=1024, multiple_of=2)
    blocks: int = Field(3, ge=1, le=24)
    heads: int = Field(4, ge=1, le=32)
    feed_forward: int = Field(2, ge=1, le=8, description="hidden size, as a multiple of width")
    kernel: Kernel = 15
    convolution: bool = True
    block_dropout: float = Field(0.1, ge=0, lt=1)
    dense: tuple[Size, ...] = ()

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> ConformerSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


def positions(steps: int, width: int, device: torch.device) -> Tensor:
    """Sine and cosine of each step at `width / 2` rates: float32 [steps, width].

    Source: Vaswani et al., Attention Is All You Need, 2017.
    """
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    angle = torch.arange(steps, device=device)[:, None] * rate[None, :]
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


class _FeedForward(nn.Sequential):
    def __init__(self, width: int, times: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, width * times),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(width * times, width),
            nn.Dropout(dropout),
        )


class _Attention(nn.Module):
    """Self-attention over the valid steps."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, steps, width = x.shape
        joint = self.project(self.norm(x)).reshape(batch, steps, 3, self.heads, width // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        heard = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=(mask > 0.5)[:, None, None, :]
        )
        joined = heard.permute(0, 2, 1, 3).reshape(batch, steps, width)
        result: Tensor = self.dropout(self.out(joined))
        return result


class _Convolution(nn.Module):
    """Gated pointwise convolution, a depthwise one, and back."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(
            width, width, kernel, padding=kernel // 2, groups=width, bias=False
        )
        self.batch_norm = nn.BatchNorm1d(width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = functional.glu(self.gate(self.norm(x)), dim=2)
        x = (x * mask[:, :, None].to(x.dtype)).transpose(1, 2)
        x = functional.silu(self.batch_norm(self.depthwise(x))).transpose(1, 2)
        result: Tensor = self.dropout(self.out(x))
        return result


class _Block(nn.Module):
    def __init__(self, settings: ConformerSettings) -> None:
        super().__init__()
        s = settings
        self.first = _FeedForward(s.width, s.feed_forward, s.block_dropout)
        self.attention = _Attention(s.width, s.heads, s.block_dropout)
        self.convolution = (
            _Convolution(s.width, s.kernel, s.block_dropout) if s.convolution else None
        )
        self.second = _FeedForward(s.width, s.feed_forward, s.block_dropout)
        self.norm = nn.LayerNorm(s.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + 0.5 * self.first(x)
        x = x + self.attention(x, mask)
        if self.convolution is not None:
            x = x + self.convolution(x, mask)
        result: Tensor = self.norm(x + 0.5 * self.second(x))
        return result


class Conformer(EmotionModel):
    """Raw audio to logits; four frames make a step."""

    def __init__(
        self, settings: ConformerSettings, frontend: FrontendSettings, labels: int
    ) -> None:
        super().__init__(settings, frontend)
        require_sequence(settings.kind, self.frontend)
        s = settings
        self.subsample = nn.ModuleList(
            nn.Conv1d(inputs, s.width, 5, stride=2, padding=2)
            for inputs in (self.frontend.dims, s.width)
        )
        self.entrance = nn.Sequential(nn.Linear(s.width, s.width), nn.Dropout(s.block_dropout))
        self.blocks = nn.ModuleList(_Block(s) for _ in range(s.blocks))
        self.step_size = s.width
        self.pooling = AttentivePooling(s.width)
        self.embedding_size = self.pooling.size
        self.dense = dense_head(self.embedding_size, s.dense, labels, s.dropout)

    def steps(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """See `EmotionModel.steps`."""
        x, count = self.features(audio, length)
        for conv in self.subsample:
            x, count = torch.relu(conv(x)), strided(count, 2)
            x = x * time_mask(count, x.shape[2])[:, None, :].to(x.dtype)
        x = x.transpose(1, 2)
        x = self.entrance(x) + positions(x.shape[1], x.shape[2], x.device)
        mask = time_mask(count, x.shape[1])
        for block in self.blocks:
            x = block(x, mask)
        return x.float(), mask

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """See `EmotionModel.pool`."""
        pooled: Tensor = self.pooling(x, mask)
        return pooled

    def head(self, embedding: Tensor) -> Tensor:
        """See `EmotionModel.head`."""
        logits: Tensor = self.dense(embedding)
        return logits.float()
