"""Models, one a module, behind one interface; and the registry of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Tag

from trainer.errors import TrainerError
from trainer.features import FrontendSettings
from trainer.models.backbone import Backbone, BackboneSettings
from trainer.models.base import EmotionModel, NetworkSettings
from trainer.models.cnn1d import Cnn1d, Cnn1dSettings
from trainer.models.cnn2d import Cnn2d, Cnn2dSettings
from trainer.models.conformer import Conformer, ConformerSettings
from trainer.models.crnn import Crnn, CrnnSettings
from trainer.models.forest import ForestSettings
from trainer.models.gru import Gru, GruSettings
from trainer.models.lstm import Lstm, LstmSettings
from trainer.models.svm import SvmSettings

__all__ = [
    "Backbone",
    "BackboneSettings",
    "Cnn1d",
    "Cnn1dSettings",
    "Cnn2d",
    "Cnn2dSettings",
    "Conformer",
    "ConformerSettings",
    "Crnn",
    "CrnnSettings",
    "EmotionModel",
    "ForestSettings",
    "Gru",
    "GruSettings",
    "Lstm",
    "LstmSettings",
    "ModelSettings",
    "NetworkSettings",
    "SvmSettings",
    "build",
    "is_classical",
]


def _kind(value: object) -> object:
    if isinstance(value, dict):
        return value.get("kind", "crnn")
    return getattr(value, "kind", None)


ModelSettings = Annotated[
    Annotated[CrnnSettings, Tag("crnn")]
    | Annotated[Cnn1dSettings, Tag("cnn1d")]
    | Annotated[Cnn2dSettings, Tag("cnn2d")]
    | Annotated[LstmSettings, Tag("lstm")]
    | Annotated[GruSettings, Tag("gru")]
    | Annotated[ConformerSettings, Tag("conformer")]
    | Annotated[BackboneSettings, Tag("backbone")]
    | Annotated[ForestSettings, Tag("forest")]
    | Annotated[SvmSettings, Tag("svm")],
    Discriminator(_kind),
]
"""A recipe's `[model]` table; without `kind` it is a CRNN's."""


def is_classical(settings: ModelSettings) -> bool:
    """Is this fitted in one go by scikit-learn (`trainer.models.classical`)?"""
    return isinstance(settings, ForestSettings | SvmSettings)


def build(settings: ModelSettings, frontend: FrontendSettings, labels: int) -> EmotionModel:
    """A fresh network of the recipe's kind.

    Every model takes (audio float32 [batch, samples], length int64 [batch]) and returns logits
    float32 [batch, labels].

    Raises
    ------
    TrainerError
        the kind does not go with the front end, or is not a network.
    """
    match settings:
        case CrnnSettings():
            return Crnn(settings, frontend, labels)
        case Cnn1dSettings():
            return Cnn1d(settings, frontend, labels)
        case Cnn2dSettings():
            return Cnn2d(settings, frontend, labels)
        case LstmSettings():
            return Lstm(settings, frontend, labels)
        case GruSettings():
            return Gru(settings, frontend, labels)
        case ConformerSettings():
            return Conformer(settings, frontend, labels)
        case BackboneSettings():
            return Backbone(settings, frontend, labels)
        case ForestSettings() | SvmSettings():
            raise TrainerError(f"model.kind = {settings.kind!r} is fitted, not trained by epochs.")
