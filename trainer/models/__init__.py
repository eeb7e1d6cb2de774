"""Models, one a module, behind one interface."""

from __future__ import annotations

from trainer.features import FrontendSettings
from trainer.models.crnn import Crnn, CrnnSettings

__all__ = ["Crnn", "CrnnSettings", "build"]


def build(settings: CrnnSettings, frontend: FrontendSettings, labels: int) -> Crnn:
    """A fresh model of the recipe's kind.

    Every model takes (audio float32 [batch, samples], length int64 [batch]) and returns logits
    float32 [batch, labels].
    """
    return Crnn(settings, frontend, labels)
