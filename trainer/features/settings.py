"""What a recipe's `[frontend]` table may say."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

FeatureName = Literal[
    "mfcc", "mfcc_delta", "mfcc_delta2", "chroma", "mel", "contrast", "tonnetz", "zcr", "rms"
]
StatisticName = Literal["mean", "std", "min", "max", "median", "q25", "q75"]

FEATURES: tuple[FeatureName, ...] = get_args(FeatureName)
STATISTICS: tuple[StatisticName, ...] = get_args(StatisticName)


class _Band(BaseModel):
    """What every front end has: a rate, frames and mel filters between two frequencies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_rate_hz: int = 16_000
    n_fft: int = Field(512, ge=64, le=4096)
    hop_length: int = Field(200, ge=32)
    n_mels: int = Field(64, ge=8, le=160)
    fmin_hz: float = Field(60.0, ge=0)
    fmax_hz: float = Field(3800.0, gt=0)

    @model_validator(mode="after")
    def _band(self) -> _Band:
        if not self.fmin_hz < self.fmax_hz <= self.sample_rate_hz / 2:
            raise ValueError("fmin_hz < fmax_hz <= half of sample_rate_hz does not hold")
        return self


class LogMelSettings(_Band):
    """Constants of the log-mel front end, as the manifest carries them.

    `fmax_hz` below 4 kHz leaves only the band that telephone and wide-band audio share.
    """

    kind: Literal["log-mel"] = "log-mel"
    log_floor: float = Field(1e-5, gt=0)
    normalise: str = Field("level", pattern="^(level|band)$")


class FrameSettings(_Band):
    """Features of librosa by frame, or statistics of them over time.

    Attributes
    ----------
    features
        which, in this order down the feature map.
    n_mfcc
        cepstral coefficients; the deltas have as many.
    standardise
        remove the mean of every dimension and divide by its deviation, both measured on the
        training part.
    summary
        statistics over the valid frames, in this order; empty: the frames themselves.
    """

    kind: Literal["frames"] = "frames"
    features: tuple[FeatureName, ...] = Field(("mfcc",), min_length=1)
    n_mfcc: int = Field(40, ge=1)
    n_fft: int = Field(2048, ge=64, le=4096)
    hop_length: int = Field(512, ge=32)
    n_mels: int = Field(128, ge=8, le=160)
    fmin_hz: float = Field(0.0, ge=0)
    fmax_hz: float = Field(8000.0, gt=0)
    standardise: bool = True
    summary: tuple[StatisticName, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> FrameSettings:
        for name in ("features", "summary"):
            chosen = getattr(self, name)
            if len(set(chosen)) != len(chosen):
                raise ValueError(f"{name} names something twice")
        if self.n_mfcc > self.n_mels:
            raise ValueError("n_mfcc is larger than n_mels")
        if "contrast" in self.features and (
            self.sample_rate_hz < 16_000 or self.n_fft * 125 < self.sample_rate_hz
        ):
            raise ValueError("contrast needs 16 kHz, and an n_fft with bins 125 Hz apart or less")
        return self


def _kind(value: object) -> object:
    if isinstance(value, dict):
        return value.get("kind", "log-mel")
    return getattr(value, "kind", None)


FrontendSettings = Annotated[
    Annotated[LogMelSettings, Tag("log-mel")] | Annotated[FrameSettings, Tag("frames")],
    Discriminator(_kind),
]
"""A table without `kind` is a log-mel front end's."""
