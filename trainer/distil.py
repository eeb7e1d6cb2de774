"""What a student learns from its teacher: targets and the losses against them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from trainer.audio import Float32
from trainer.features import time_mask
from trainer.metrics import Int64

STEP_SAMPLES = 1600
"""A teacher's features come in steps of 100 ms."""

Float16 = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Heard:
    """What an encoder makes of segments, as it says it.

    Attributes
    ----------
    statistics
        float16 [copies, stored utterances, layers * 2 * width], mean and deviation over time.
    steps
        float16 [copies, stored utterances, steps, width], mean over the chosen layers and over
        `STEP_SAMPLES`; zero beyond the length.
    rows
        int64 [utterances], the place of each among those stored.
    """

    statistics: Float16
    steps: Float16
    rows: Int64

    def subset(self, rows: Int64) -> Heard:
        """What was heard of some stored utterances, in the order given."""
        return Heard(self.statistics, self.steps, rows)


@dataclass(frozen=True, slots=True)
class Projection:
    """Principal components, each scaled to deviation 1.

    Attributes
    ----------
    mean
        float32 [width].
    matrix
        float32 [width, components].
    """

    mean: Float32
    matrix: Float32

    @staticmethod
    def learn(values: Float32, components: int) -> Projection:
        """From float32 [rows, width]."""
        mean = values.mean(axis=0)
        centred = values - mean
        variance, directions = np.linalg.eigh(centred.T @ centred / len(values))
        kept = slice(None, -components - 1, -1)
        scale = np.sqrt(np.maximum(variance[kept], 1e-10))
        return Projection(mean.astype(np.float32), (directions[:, kept] / scale).astype(np.float32))

    def __call__(self, values: npt.NDArray[np.floating]) -> Float32:
        """Values [..., width] to components, float32 [..., components]."""
        return np.asarray((values.astype(np.float32) - self.mean) @ self.matrix, np.float32)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher says of a batch.

    Attributes
    ----------
    said
        float32 [batch, labels], logits.
    steps
        float32 [batch, steps, components].
    pooled
        float32 [batch, components], of the statistics over time.
    """

    said: Tensor
    steps: Tensor
    pooled: Tensor

    def part(self, rows: slice, device: torch.device) -> Lesson:
        """Some of the rows, on a device."""
        return Lesson(
            self.said[rows].to(device), self.steps[rows].to(device), self.pooled[rows].to(device)
        )

    def first(self, steps: int) -> Lesson:
        """The same on the first steps alone, as far as the student hears."""
        return Lesson(self.said, self.steps[:, :steps], self.pooled)


@dataclass(frozen=True, slots=True)
class Targets:
    """What a teacher says of the segments of a bank.

    Attributes
    ----------
    logits
        float32 [copies, utterances, labels].
    heard
        what the encoder made of the same segments.
    of_steps, of_statistics
        to standardised components, learnt from the utterances' own segments.
    """

    logits: Float32
    heard: Heard
    of_steps: Projection
    of_statistics: Projection

    @property
    def components(self) -> tuple[int, int]:
        """Components of the steps and of the statistics."""
        return self.of_steps.matrix.shape[1], self.of_statistics.matrix.shape[1]

    def take(self, copies: Int64, utterances: Int64, cut: Int64) -> Lesson:
        """The lesson on some segments, each without its first `cut` samples."""
        stored = self.heard.rows[utterances]
        steps = self.heard.steps[copies, stored]
        moved = np.zeros_like(steps)
        for row, first in enumerate(cut // STEP_SAMPLES):
            moved[row, : steps.shape[1] - first] = steps[row, first:]
        return Lesson(
            torch.from_numpy(self.logits[copies, utterances]),
            torch.from_numpy(self.of_steps(moved)),
            torch.from_numpy(self.of_statistics(self.heard.statistics[copies, stored])),
        )


def score_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence from the teacher's softened scores.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015.
    """
    divergence = functional.kl_div(
        functional.log_softmax(logits / temperature, dim=1),
        functional.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


def feature_loss(features: Tensor, teacher_features: Tensor, samples: Tensor) -> Tensor:
    """Mean square error over the steps that lie within each row's length.

    Parameters
    ----------
    features
        float32 [batch, student steps, components], the student's steps covering as much time as
        the teacher's; brought to the teacher's steps.
    teacher_features
        float32 [batch, steps, components].
    samples
        int64 [batch].
    """
    steps = teacher_features.shape[1]
    matched = functional.adaptive_avg_pool1d(features.transpose(1, 2), steps).transpose(1, 2)
    whole = torch.clamp(torch.div(samples, STEP_SAMPLES, rounding_mode="floor"), min=1)
    mask = time_mask(whole, steps)[:, :, None]
    error = (matched - teacher_features) ** 2 * mask
    return error.sum() / (mask.sum() * features.shape[2])
