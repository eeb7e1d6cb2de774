"""What every front end is, and how frames are counted."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def frame_count(length: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Frames that lie wholly within `length` samples, at least one: int64 [batch]."""
    whole = torch.div(length - n_fft, hop_length, rounding_mode="floor") + 1
    return torch.clamp(whole, min=1)


def time_mask(count: Tensor, steps: int) -> Tensor:
    """1.0 for the first `count` steps of each row, else 0.0: float32 [batch, steps]."""
    return (torch.arange(steps, device=count.device)[None, :] < count[:, None]).float()


class Frontend(nn.Module):
    """Raw audio to a map of features.

    Attributes
    ----------
    dims
        rows of the map.
    is_summary
        the map has one column: statistics over time.
    n_fft, hop_length
        samples of a frame, and from one frame to the next.
    """

    dims: int
    is_summary: bool
    n_fft: int
    hop_length: int

    def forward(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Features and their count of valid frames.

        Parameters
        ----------
        audio
            float32 [batch, samples] at 16 kHz in [-1, 1].
        length
            int64 [batch], valid samples of each row; the rest is not looked at.

        Returns
        -------
        float32 [batch, dims, frames], zero beyond the valid frames, and int64 [batch].
        """
        raise NotImplementedError

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure on training audio what has to be measured; most front ends need nothing.

        Parameters
        ----------
        batches
            (audio, length) as `forward` takes them, of the training part alone.
        """
