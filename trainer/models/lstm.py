"""LSTM over the features, with convolutions in front where the recipe wants them."""

from __future__ import annotations

from typing import Literal

from torch import nn

from trainer.features import FrontendSettings
from trainer.models.recurrent import Recurrent, RecurrentSettings


class LstmSettings(RecurrentSettings):
    """See `RecurrentSettings`."""

    kind: Literal["lstm"] = "lstm"


class Lstm(Recurrent):
    """Raw audio to logits. Source: Hochreiter and Schmidhuber, Long Short-Term Memory, 1997."""

    def __init__(self, settings: LstmSettings, frontend: FrontendSettings, labels: int) -> None:
        super().__init__(settings, settings.kind, nn.LSTM, frontend, labels)
