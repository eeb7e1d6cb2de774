"""The network: a dense layer over a frame's bands, recurrent layers, a probability."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.vad.frontend import LOG_FLOOR, WINDOWS, bands
from trainer.vad.settings import FrontendSettings, NetworkSettings

RATES_HZ = (8000, 16_000)


class Network(nn.Module):
    """Log mel bands to the logit of speech, frame by frame, causal.

    Features are those of 16 kHz; at 8 kHz the bands above 3.8 kHz are zero after
    standardisation, so that they count for nothing.

    Buffers `mean` and `scale` (float32 [features]) standardise the features; `low` marks those
    that both rates have.
    """

    mean: Tensor
    scale: Tensor
    low: Tensor

    def __init__(self, frontend: FrontendSettings, settings: NetworkSettings) -> None:
        super().__init__()
        self.frontend_settings = frontend
        self.settings = settings
        per_window = bands(frontend, 16_000)
        features = WINDOWS * per_window
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        low = torch.arange(features) % per_window < frontend.low
        self.register_buffer("low", low, persistent=False)
        self.dense = nn.Linear(features, settings.dense)
        self.recurrent = nn.GRU(settings.dense, settings.hidden, settings.layers, batch_first=True)
        self.head = nn.Linear(settings.hidden, 1)

    def standardise(self, features: Tensor, wide: Tensor) -> Tensor:
        """Raw features, float32 [batch, frames, features of 16 kHz], to what `forward` takes.

        `wide` is bool [batch]: rows that really are at 16 kHz.
        """
        counted = self.low | wide[:, None, None]
        return torch.where(counted, (features - self.mean) * self.scale, 0.0)

    def empty_state(self, batch: int) -> Tensor:
        """The state before the first frame: zeros, float32 [layers, batch, hidden]."""
        return torch.zeros(self.settings.layers, batch, self.settings.hidden)

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits float32 [batch, frames] and the state behind the last frame."""
        heard, state = self.recurrent(torch.relu(self.dense(features)), state)
        return self.head(heard).squeeze(2), state


def widen(features: Tensor, settings: FrontendSettings) -> Tensor:
    """Features of 8 kHz in the places they have at 16 kHz, float32 [..., features]."""
    split = features.reshape(*features.shape[:-1], WINDOWS, settings.low)
    empty = torch.full(
        (*split.shape[:-1], settings.high), float(torch.log(torch.tensor(LOG_FLOOR)))
    )
    return torch.cat([split, empty], dim=-1).flatten(-2)
