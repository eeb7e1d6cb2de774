"""GRU over the features, with convolutions in front where the recipe wants them."""

from __future__ import annotations

from typing import Literal

from torch import nn

from trainer.features import FrontendSettings
from trainer.models.recurrent import Recurrent, RecurrentSettings


class GruSettings(RecurrentSettings):
    """See `RecurrentSettings`."""

    kind: Literal["gru"] = "gru"


class Gru(Recurrent):
    """Raw audio to logits. Source: Cho et al., RNN Encoder-Decoder, 2014."""

    def __init__(self, settings: GruSettings, frontend: FrontendSettings, labels: int) -> None:
        super().__init__(settings, settings.kind, nn.GRU, frontend, labels)
