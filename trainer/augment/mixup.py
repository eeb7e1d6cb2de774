"""Mixup: two segments heard at once, labelled in proportion to how loud each is heard.

Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018), with the weights that Tokozume
et al. give for sound in "Learning from Between-class Examples" (2018): segments of different
levels are brought to the drawn ratio by their RMS, and the sum keeps the power of one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def mixup(
    audio: Tensor, length: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix each row with another row of the batch.

    Parameters
    ----------
    audio
        float32 [batch, samples], zero beyond the length.
    length
        int64 [batch].
    targets
        float32 [batch, labels], probabilities.
    alpha
        of the Beta(alpha, alpha) that a row's share is drawn from.

    Returns
    -------
    Audio, length (the longer of the two) and targets (shares of the two), new tensors.
    """
    batch = len(audio)
    partner = torch.from_numpy(rng.permutation(batch)).to(audio.device)
    drawn = torch.from_numpy(rng.beta(alpha, alpha, batch))
    share = drawn.clamp(1e-4, 1 - 1e-4).to(audio.device, audio.dtype)[:, None]
    power = audio.square().sum(dim=1, keepdim=True) / length.clamp(min=1)[:, None]
    level = power.sqrt().clamp(min=1e-6)
    weight = 1 / (1 + level / level[partner] * (1 - share) / share)
    mixed = weight * audio + (1 - weight) * audio[partner]
    mixed = mixed / (weight.square() + (1 - weight).square()).sqrt()
    return (
        mixed,
        torch.maximum(length, length[partner]),
        share * targets + (1 - share) * targets[partner],
    )
