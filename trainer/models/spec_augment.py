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
        batch, mels, steps = features.shape
        mel_count = torch.full_like(frames, mels)
        for axis_size, count, masks, width, view in (
            (mels, mel_count, s.spec_mel_masks, s.spec_mel_width, (batch, mels, 1)),
            (steps, frames, s.spec_time_masks, s.spec_time_width, (batch, 1, steps)),
        ):
            position = torch.arange(axis_size, device=features.device)[None, :]
            for _ in range(masks):
                span = torch.rand(batch, device=features.device) * width
                # A span never covers more than a fifth of a short row.
                span = torch.minimum(span, count * 0.2)
                start = torch.rand(batch, device=features.device) * (count - span)
                inside = (position >= start[:, None]) & (position < (start + span)[:, None])
                features = features.masked_fill(inside.view(view), 0.0)
        return features
