"""What every neural model is: raw audio to steps, steps to an embedding, that to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from trainer.errors import TrainerError
from trainer.features import Frontend, FrontendSettings, build_frontend
from trainer.models.spec_augment import SpecAugment, SpecAugmentSettings


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError("must be odd")
    return kernel


Size = Annotated[int, Field(ge=1, le=4096)]
"""Channels, or units of a layer."""

Kernel = Annotated[int, Field(ge=1, le=63), AfterValidator(_odd)]
"""Steps of a convolution; an even number would shift what it filters."""


class NetworkSettings(SpecAugmentSettings):
    """What the settings of every neural kind hold."""

    dropout: float = Field(0.3, ge=0, lt=1)


class EmotionModel(nn.Module, ABC):
    """Raw audio to logits, in three stages that a training loop may also use apart.

    In evaluation mode a row's results depend on its own valid samples alone: neither on what
    lies beyond `length` nor on the other rows.

    Attributes
    ----------
    frontend
        the features, inside the graph.
    step_size
        size of a step.
    embedding_size
        size of the pooled embedding.
    """

    frontend: Frontend
    step_size: int
    embedding_size: int

    def __init__(self, settings: NetworkSettings, frontend: FrontendSettings) -> None:
        super().__init__()
        self.frontend = build_frontend(frontend)
        self.spec_augment = SpecAugment(settings)

    def features(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """The front end's features, in training with SpecAugment where they are a sequence.

        Parameters
        ----------
        audio
            float32 [batch, samples].
        length
            int64 [batch].

        Returns
        -------
        float32 [batch, dims, frames], zero beyond the valid frames, and int64 [batch].
        """
        x, frames = self.frontend(audio, length)
        if not self.frontend.is_summary:
            x = self.spec_augment(x, frames)
        return x, frames

    @abstractmethod
    def steps(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """What the network makes of the audio before pooling.

        Parameters
        ----------
        audio
            float32 [batch, samples].
        length
            int64 [batch].

        Returns
        -------
        float32 [batch, steps, step_size], and the mask of valid steps, float32 [batch, steps].
        """

    @abstractmethod
    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """Steps and their mask, as `steps` returns them, to float32 [batch, embedding_size]."""

    @abstractmethod
    def head(self, embedding: Tensor) -> Tensor:
        """Embedding float32 [batch, embedding_size] to logits float32 [batch, labels]."""

    def forward(self, audio: Tensor, length: Tensor) -> Tensor:
        """Audio float32 [batch, samples], length int64 [batch], to logits [batch, labels]."""
        return self.head(self.pool(*self.steps(audio, length)))


def require_sequence(kind: str, frontend: Frontend) -> None:
    """Refuse features that are one vector a row.

    Raises
    ------
    TrainerError
        they are.
    """
    if frontend.is_summary:
        raise TrainerError(
            f"model.kind = {kind!r} needs features in time, and frontend.summary makes one vector "
            "of each segment: leave out frontend.summary, or take kind 'cnn1d', 'forest' or 'svm'."
        )


def attentive_statistics(x: Tensor, mask: Tensor, score: Tensor) -> Tensor:
    """Mean and deviation over the valid steps, weighted by attention.

    Source: Okabe et al., Attentive Statistics Pooling for Deep Speaker Embedding, 2018.

    Parameters
    ----------
    x
        float32 [batch, steps, size].
    mask
        float32 [batch, steps].
    score
        [batch, steps, 1], before the softmax.

    Returns
    -------
    float32 [batch, 2 * size].
    """
    score = score.squeeze(2).float().masked_fill(mask < 0.5, -1e4)
    weight = torch.softmax(score, dim=1)[:, :, None]
    mean = (x * weight).sum(dim=1)
    spread = ((x - mean[:, None, :]) ** 2 * weight).sum(dim=1)
    return torch.cat([mean, torch.sqrt(spread + 1e-6)], dim=1)


class AttentivePooling(nn.Module):
    """`attentive_statistics` with scores from a small network; `size` is that of the result."""

    def __init__(self, step_size: int) -> None:
        super().__init__()
        self.size = 2 * step_size
        self.score = nn.Sequential(nn.Linear(step_size, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """float32 [batch, steps, step_size] and [batch, steps] to [batch, size]."""
        return attentive_statistics(x, mask, self.score(x))


def dense_head(inputs: int, dense: Sequence[int], labels: int, dropout: float) -> nn.Sequential:
    """Fully connected layers with ReLU and dropout, then the logits."""
    layers: list[nn.Module] = [nn.Dropout(dropout)]
    for size in dense:
        layers += [nn.Linear(inputs, size), nn.ReLU(), nn.Dropout(dropout)]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, labels))
