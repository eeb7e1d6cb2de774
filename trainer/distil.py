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

STEP_SAMPLES = 1600
"""A teacher's features come in steps of 100 ms."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What a teacher says of every segment of the bank.

    Attributes
    ----------
    logits
        float32 [copies, utterances, labels].
    features
        float16 [copies, utterances, steps, components], standardised; a step is
        `STEP_SAMPLES` of audio.
    """

    logits: Float32
    features: npt.NDArray[np.float16]


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


def feature_loss(features: Tensor, teacher_features: Tensor, length: Tensor) -> Tensor:
    """Mean square error over the steps that lie within each row's length.

    Parameters
    ----------
    features
        float32 [batch, student steps, components]; brought to the teacher's steps.
    teacher_features
        float32 [batch, steps, components].
    length
        int64 [batch], samples.
    """
    steps = teacher_features.shape[1]
    matched = functional.adaptive_avg_pool1d(features.transpose(1, 2), steps).transpose(1, 2)
    whole = torch.clamp(torch.div(length, STEP_SAMPLES, rounding_mode="floor"), min=1)
    mask = time_mask(whole, steps)[:, :, None]
    error = (matched - teacher_features) ** 2 * mask
    return error.sum() / (mask.sum() * features.shape[2])
