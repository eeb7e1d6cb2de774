"""Zero mean and unit deviation of every dimension, as measured on training audio."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainer.errors import TrainerError


class Standardise(nn.Module):
    """Holds each dimension's mean and deviation; leaves values alone until it is fitted."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("deviation", torch.ones(dims))

    def forward(self, values: Tensor) -> Tensor:
        """float32 [..., dims], the same shape back."""
        return (values - self.mean) / self.deviation

    def fit(self, parts: Iterable[Tensor]) -> None:
        """Measure over all rows of all parts, each float32 [rows, dims].

        Raises
        ------
        TrainerError
            there is nothing to measure, or something that is not a number.
        """
        count = 0
        mean = torch.zeros_like(self.mean, dtype=torch.float64)
        square = torch.zeros_like(mean)
        for part in parts:
            rows = part.double()
            if not len(rows):
                continue
            # Chan, Golub and LeVeque, 1979: moments of two parts make those of both.
            theirs = rows.mean(dim=0)
            apart, total = theirs - mean, count + len(rows)
            square += ((rows - theirs) ** 2).sum(dim=0)
            square += apart**2 * (count * len(rows) / total)
            mean += apart * (len(rows) / total)
            count = total
        if not count:
            raise TrainerError("There is no training audio to standardise the features on.")
        deviation = torch.sqrt(square / count)
        if not bool(torch.isfinite(mean).all() and torch.isfinite(deviation).all()):
            raise TrainerError("Some training audio's features are not numbers.")
        # A dimension that does not vary stays at zero instead of showing rounding errors.
        still = deviation <= 1e-6 * torch.clamp(mean.abs(), min=1e-3)
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(still, torch.ones_like(deviation), deviation))
