"""Statistics of features over a row's valid frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.features.base import time_mask
from trainer.features.settings import StatisticName

_QUANTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75}
# Beyond every feature, and finite: infinity times a mask of zero is not a number.
_FAR = 1e30


def summarise(values: Tensor, frames: Tensor, statistics: Sequence[StatisticName]) -> Tensor:
    """One column a row: the first statistic of every dimension, then the second, and so on.

    The deviation is that of the whole population; quantiles lie linearly between the two
    nearest frames.

    Parameters
    ----------
    values
        float32 [batch, frames, dims].
    frames
        int64 [batch], valid frames, at least one.
    statistics
        which, in order.

    Returns
    -------
    float32 [batch, len(statistics) * dims].
    """
    mask = time_mask(frames, values.shape[1])[:, :, None]
    count = frames.to(values.dtype)[:, None]
    mean = (values * mask).sum(dim=1) / count
    found: list[Tensor] = []
    ascending: Tensor | None = None
    for statistic in statistics:
        if statistic == "mean":
            found.append(mean)
        elif statistic == "std":
            centred = (values - mean[:, None, :]) * mask
            found.append(torch.sqrt((centred * centred).sum(dim=1) / count))
        elif statistic == "max":
            found.append(torch.amax(values * mask - _FAR * (1.0 - mask), dim=1))
        elif statistic == "min":
            found.append(torch.amin(values * mask + _FAR * (1.0 - mask), dim=1))
        else:
            if ascending is None:
                ascending, _ = torch.sort(values * mask + _FAR * (1.0 - mask), dim=1)
            found.append(_quantile(ascending, count, _QUANTILES[statistic]))
    return torch.cat(found, dim=1)


def _quantile(ascending: Tensor, count: Tensor, share: float) -> Tensor:
    """Of values ascending along dimension 1, the first `count` of which are valid."""
    place = (count - 1.0) * share
    below = torch.floor(place)
    above = torch.minimum(below + 1.0, count - 1.0)
    low, high = (
        torch.gather(ascending, 1, i.long()[:, :, None].expand(-1, -1, ascending.shape[2]))[:, 0]
        for i in (below, above)
    )
    return low + (high - low) * (place - below)
