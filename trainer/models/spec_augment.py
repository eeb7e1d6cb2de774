"""SpecAugment: bands and spans of the features hidden, in training only."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class SpecAugmentSettings(BaseModel):
    """Spans of frames and bands of rows that are hidden, at most so many and so wide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec_time_masks: int = Field(2, ge=0)
    spec_time_width: int = Field(24, ge=1)
    spec_mel_masks: int = Field(2, ge=0)
    spec_mel_width: int = Field(8, ge=1)


class SpecAugment(nn.Module):
    """Zero random bands and spans of normalised features, in training only.

    Source: Park et al., SpecAugment, 2019. Zero is each row's mean after normalisation.
    """

    def __init__(self, settings: SpecAugmentSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        """features float32 [batch, mels, frames], frames int64 [batch]; same shape back."""
        if not self.training:
            return features
        s = self.settings
        _, mels, steps = features.shape
        mel_count = torch.full_like(frames, mels)
        bands = self._hidden(mels, mel_count, s.spec_mel_masks, s.spec_mel_width)
        spans = self._hidden(steps, frames, s.spec_time_masks, s.spec_time_width)
        # One pass over the features: they are large, the masks are not.
        return features.masked_fill(bands[:, :, None] | spans[:, None, :], 0.0)

    @staticmethod
    def _hidden(size: int, count: Tensor, masks: int, width: int) -> Tensor:
        """What of an axis is hidden, bool [batch, size]; `count` int64 [batch] are valid."""
        position = torch.arange(size, device=count.device)[None, :]
        hidden = torch.zeros(len(count), size, dtype=torch.bool, device=count.device)
        for _ in range(masks):
            span = torch.rand(len(count), device=count.device) * width
            # A span never covers more than a fifth of a short row.
            span = torch.minimum(span, count * 0.2)
            start = torch.rand(len(count), device=count.device) * (count - span)
            hidden |= (position >= start[:, None]) & (position < (start + span)[:, None])
        return hidden
