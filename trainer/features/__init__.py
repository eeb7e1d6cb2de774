"""Front ends: audio in, a map of features out, in plain operators that ONNX has."""

from __future__ import annotations

from trainer.features.base import Frontend, frame_count, time_mask
from trainer.features.frames import FrameFeatures, feature_rows
from trainer.features.logmel import LogMel, mel_matrix
from trainer.features.reference import librosa_features
from trainer.features.settings import (
    FEATURES,
    STATISTICS,
    FeatureName,
    FrameSettings,
    FrontendSettings,
    LogMelSettings,
    StatisticName,
)

__all__ = [
    "FEATURES",
    "STATISTICS",
    "FeatureName",
    "FrameFeatures",
    "FrameSettings",
    "Frontend",
    "FrontendSettings",
    "LogMel",
    "LogMelSettings",
    "StatisticName",
    "build_frontend",
    "feature_rows",
    "frame_count",
    "librosa_features",
    "mel_matrix",
    "time_mask",
]


def build_frontend(settings: FrontendSettings) -> Frontend:
    """A fresh front end of the recipe's kind."""
    if isinstance(settings, LogMelSettings):
        return LogMel(settings)
    return FrameFeatures(settings)
