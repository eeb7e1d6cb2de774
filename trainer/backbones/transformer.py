"""A layer of Whisper's encoder, and of those that were made from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Layer(nn.Module):
    """Self-attention and a dense part, each normalised before and added to what came in.

    Source: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022.
    """

    def __init__(self, width: int, heads: int, head_size: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.norm = nn.LayerNorm(width)
        # Queries, keys and values in one product; queries already divided by the root of the
        # size of a head.
        self.attend = nn.Linear(width, 3 * heads * head_size)
        self.join = nn.Linear(heads * head_size, width)
        self.dense_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)

    def forward(
        self, x: Tensor, batch: int, steps: int, keys: Tensor | None, stride: int = 1
    ) -> Tensor:
        """float32 [batch * steps, width] to as many rows, or one of every `stride` steps.

        Rows of a matrix and not of a batch of them: onnxruntime then adds biases in the product.

        Parameters
        ----------
        keys
            added to scores [batch, 1, 1, steps].
        stride
            every so many-th step is asked for; all of them are heard.
        """
        normed, weight, bias = self.norm(x), self.attend.weight, self.attend.bias
        if stride == 1:
            made = functional.linear(normed, weight, bias)
            query, key, value = self._heads(made, batch, steps)
        else:
            queries = self.heads * self.head_size
            asked = _every(normed, steps, stride)
            made = functional.linear(asked, weight[:queries], bias[:queries])
            (query,) = self._heads(made, batch, -(-steps // stride))
            made = functional.linear(normed, weight[queries:], bias[queries:])
            key, value = self._heads(made, batch, steps)
            x = _every(x, steps, stride)
        scores = torch.matmul(query, key.transpose(2, 3))
        weights = torch.softmax(scores if keys is None else scores + keys, dim=3)
        mixed = torch.matmul(weights, value).transpose(1, 2)
        x = x + self.join(mixed.reshape(-1, self.heads * self.head_size))
        further: Tensor = x + self.narrow(functional.gelu(self.widen(self.dense_norm(x))))
        return further

    def _heads(self, made: Tensor, batch: int, steps: int) -> tuple[Tensor, ...]:
        """Of one or more of queries, keys and values, each [batch, heads, steps, head size]."""
        parts = int(made.shape[1]) // (self.heads * self.head_size)
        made = made.reshape(batch, steps, parts, self.heads, self.head_size)
        return made.permute(2, 0, 3, 1, 4).unbind(0)

    @classmethod
    @torch.no_grad()
    def of(cls, block: Any) -> Layer:
        """A layer of a `transformers` Whisper, which has no dropout."""
        attention, width = block.self_attn, int(block.fc1.in_features)
        heads, size = int(attention.num_heads), int(attention.head_dim)
        layer = cls(width, heads, size, int(block.fc1.out_features))
        scale = size**-0.5
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        layer.attend.weight.copy_(torch.cat([query.weight * scale, key.weight, value.weight]))
        layer.attend.bias.copy_(
            torch.cat([query.bias * scale, torch.zeros_like(query.bias), value.bias])
        )
        for ours, theirs in (
            (layer.norm, block.self_attn_layer_norm),
            (layer.join, attention.out_proj),
            (layer.dense_norm, block.final_layer_norm),
            (layer.widen, block.fc1),
            (layer.narrow, block.fc2),
        ):
            ours.load_state_dict(theirs.state_dict())
        return layer


def _every(x: Tensor, steps: int, stride: int) -> Tensor:
    """Every so many-th step: [batch * steps, width] to [batch * fewer steps, width]."""
    width = int(x.shape[1])
    return x.reshape(-1, steps, width)[:, ::stride].reshape(-1, width)
