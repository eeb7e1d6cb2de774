"""What LSTM and GRU share: convolutions in front, layers in one or both directions, pooling."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

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
from trainer.models.convolution import ConvStack

Cell = type[nn.LSTM] | type[nn.GRU]


class RecurrentSettings(NetworkSettings):
    """Convolution blocks as in `cnn1d` (none by default), `layers` recurrent layers, dense layers.

    `pooling` over time: learnt attention, the mean, or the state after the last valid step (in
    both directions where there are two).
    """

    channels: tuple[Size, ...] = ()
    kernel: Kernel = 5
    pool: int = Field(2, ge=1, le=16)
    pool_stride: int = Field(2, ge=1, le=16)
    batch_norm: bool = True
    conv_dropout: float = Field(0.1, ge=0, lt=1)
    hidden: Size = 96
    layers: int = Field(2, ge=1, le=8)
    bidirectional: bool = True
    pooling: Literal["attention", "mean", "last"] = "attention"
    dense: tuple[Size, ...] = ()


def turn(x: Tensor, count: Tensor) -> Tensor:
    """Reverse each row's first `count` steps; those beyond keep their place.

    Parameters
    ----------
    x
        [batch, steps, size].
    count
        int64 [batch].
    """
    position = torch.arange(x.shape[1], device=x.device)[None, :]
    turned = torch.where(position < count[:, None], count[:, None] - 1 - position, position)
    return torch.gather(x, 1, turned[:, :, None].expand(-1, -1, x.shape[2]))


class Layer(nn.Module):
    """One recurrent layer; the backward direction runs over the row turned at its last step."""

    def __init__(self, cell: Cell, inputs: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.ahead = cell(inputs, hidden, batch_first=True)
        self.back = cell(inputs, hidden, batch_first=True) if bidirectional else None

    def forward(self, x: Tensor, count: Tensor) -> Tensor:
        """[batch, steps, inputs] to [batch, steps, hidden], or twice that in both directions."""
        ahead, _ = self.ahead(x)
        if self.back is None:
            found: Tensor = ahead
            return found
        back, _ = self.back(turn(x, count))
        return torch.cat([ahead, turn(back, count)], dim=2)


class Recurrent(EmotionModel):
    """Raw audio to logits through recurrent layers of one cell."""

    def __init__(
        self,
        settings: RecurrentSettings,
        kind: str,
        cell: Cell,
        frontend: FrontendSettings,
        labels: int,
    ) -> None:
        super().__init__(settings, frontend)
        require_sequence(kind, self.frontend)
        s = settings
        self.settings = s
        self.convolutions = ConvStack(
            self.frontend.dims,
            s.channels,
            s.kernel,
            s.pool,
            s.pool_stride,
            s.batch_norm,
            s.conv_dropout,
        )
        self.step_size = s.hidden * (2 if s.bidirectional else 1)
        self.layers = nn.ModuleList(
            Layer(
                cell,
                self.convolutions.size if i == 0 else self.step_size,
                s.hidden,
                s.bidirectional,
            )
            for i in range(s.layers)
        )
        self.dropout = nn.Dropout(s.dropout)
        self.pooling = AttentivePooling(self.step_size) if s.pooling == "attention" else None
        self.embedding_size = self.step_size if self.pooling is None else self.pooling.size
        self.dense = dense_head(self.embedding_size, s.dense, labels, s.dropout)

    def steps(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """See `EmotionModel.steps`."""
        x, count = self.convolutions(*self.features(audio, length))
        x = x.transpose(1, 2)
        for i, layer in enumerate(self.layers):
            x = layer(x if i == 0 else self.dropout(x), count)
        return x.float(), time_mask(count, x.shape[1])

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """See `EmotionModel.pool`."""
        if self.pooling is not None:
            pooled: Tensor = self.pooling(x, mask)
            return pooled
        count = mask.sum(dim=1, keepdim=True)
        if self.settings.pooling == "mean":
            return (x * mask[:, :, None]).sum(dim=1) / count
        index = (count - 1).long()[:, :, None].expand(-1, -1, x.shape[2])
        last = torch.gather(x, 1, index).squeeze(1)
        if not self.settings.bidirectional:
            return last
        hidden = self.settings.hidden
        # Backwards, the last step heard is the row's first.
        return torch.cat([last[:, :hidden], x[:, 0, hidden:]], dim=1)

    def head(self, embedding: Tensor) -> Tensor:
        """See `EmotionModel.head`."""
        logits: Tensor = self.dense(embedding)
        return logits.float()
