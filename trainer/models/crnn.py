"""CRNN: convolutions over log-mel, a bidirectional GRU, masked attention pooling."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from trainer.features import FrontendSettings, LogMel, time_mask


class CrnnSettings(BaseModel):
    """Size of the network.

    Each convolution block halves the mel axis; `time_strides` says which also halve time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["crnn"] = "crnn"
    channels: tuple[int, ...] = (32, 64, 96, 128)
    time_strides: tuple[Literal[1, 2], ...] = (2, 2, 1, 2)
    projection: int = Field(192, ge=8)
    hidden: int = Field(128, ge=8)
    dropout: float = Field(0.3, ge=0, lt=1)
    spec_time_masks: int = Field(2, ge=0)
    spec_time_width: int = Field(24, ge=1)
    spec_mel_masks: int = Field(2, ge=0)
    spec_mel_width: int = Field(8, ge=1)


class SpecAugment(nn.Module):
    """Zero random bands and spans of normalised features, in training only.

    Source: Park et al., SpecAugment, 2019. Zero is each row's mean after normalisation.
    """

    def __init__(self, settings: CrnnSettings) -> None:
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


class _Block(nn.Module):
    """3x3 convolution, batch norm, ReLU, and zeros again beyond the valid steps."""

    def __init__(self, inputs: int, outputs: int, time_stride: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=(2, time_stride), padding=kernel // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.time_stride = time_stride

    def forward(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.norm(self.conv(x)))
        if self.time_stride == 2:
            frames = torch.div(frames + 1, 2, rounding_mode="floor")
        mask = time_mask(frames, x.shape[3])
        return x * mask[:, None, None, :].to(x.dtype), frames


class Crnn(nn.Module):
    """Raw audio to logits.

    A row's logits depend on its own valid samples alone: features, activations and the
    attention are masked by `length`, and the backward direction of the GRU runs over the row
    turned about its own last valid step.
    """

    def __init__(self, settings: CrnnSettings, frontend: FrontendSettings, labels: int) -> None:
        super().__init__()
        self.frontend = LogMel(frontend)
        self.spec_augment = SpecAugment(settings)
        blocks: list[_Block] = []
        inputs, mels = 1, frontend.n_mels
        for i, (outputs, stride) in enumerate(
            zip(settings.channels, settings.time_strides, strict=True)
        ):
            blocks.append(_Block(inputs, outputs, stride, kernel=5 if i == 0 else 3))
            inputs, mels = outputs, (mels + 1) // 2
        self.blocks = nn.ModuleList(blocks)
        self.project = nn.Sequential(
            nn.Linear(inputs * mels, settings.projection),
            nn.LayerNorm(settings.projection),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
        )
        self.forward_gru = nn.GRU(settings.projection, settings.hidden, batch_first=True)
        self.backward_gru = nn.GRU(settings.projection, settings.hidden, batch_first=True)
        width = 2 * settings.hidden
        self.attention = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, 1))
        self.step_size = width
        self.embedding_size = 2 * width
        self.dropout = nn.Dropout(settings.dropout)
        self.classify = nn.Linear(self.embedding_size, labels)

    def steps(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """What the recurrent layers make of the audio, step by step.

        Parameters
        ----------
        audio
            float32 [batch, samples]
        length
            int64 [batch].

        Returns
        -------
        float32 [batch, steps, 2 * hidden], and the mask of valid steps, float32 [batch, steps].
        """
        features, frames = self.frontend(audio, length)
        x = self.spec_augment(features, frames)[:, None]
        for block in self.blocks:
            x, frames = block(x, frames)
        batch, channels, mels, steps = x.shape
        x = self.project(x.permute(0, 3, 1, 2).reshape(batch, steps, channels * mels))
        # Reversal within the valid steps; those beyond keep their place.
        position = torch.arange(steps, device=x.device)[None, :]
        reverse = torch.where(position < frames[:, None], frames[:, None] - 1 - position, position)
        index = reverse[:, :, None]
        ahead, _ = self.forward_gru(x)
        back, _ = self.backward_gru(torch.gather(x, 1, index.expand(-1, -1, x.shape[2])))
        back = torch.gather(back, 1, index.expand(-1, -1, back.shape[2]))
        return torch.cat([ahead, back], dim=2).float(), time_mask(frames, steps)

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention-weighted mean and deviation over the valid steps.

        Parameters
        ----------
        x
            float32 [batch, steps, 2 * hidden].
        mask
            float32 [batch, steps].

        Returns
        -------
        float32 [batch, embedding_size].
        """
        score = self.attention(x).squeeze(2).float().masked_fill(mask < 0.5, -1e4)
        weight = torch.softmax(score, dim=1)[:, :, None]
        mean = (x * weight).sum(dim=1)
        spread = ((x - mean[:, None, :]) ** 2 * weight).sum(dim=1)
        return torch.cat([mean, torch.sqrt(spread + 1e-6)], dim=1)

    def head(self, embedding: Tensor) -> Tensor:
        """Embedding float32 [batch, embedding_size] to logits float32 [batch, labels]."""
        logits: Tensor = self.classify(self.dropout(embedding))
        return logits

    def forward(self, audio: Tensor, length: Tensor) -> Tensor:
        """Audio float32 [batch, samples], length int64 [batch], to logits [batch, labels]."""
        return self.head(self.pool(*self.steps(audio, length)))
