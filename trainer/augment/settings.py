"""The `[augment]` table of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from trainer.augment.codecs import Codec
from trainer.augment.packets import Concealment


def _in_order(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the range runs down, from {pair[0]} to {pair[1]}")
    return pair


_Weights = TypeVar("_Weights", bound=Mapping[str, float])


def _some_weight(weights: _Weights) -> _Weights:
    if min(weights.values(), default=0) < 0 or sum(weights.values()) <= 0:
        raise ValueError("weights must not be negative, and at least one above zero")
    return weights


Probability = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]
Range = Annotated[tuple[float, float], AfterValidator(_in_order)]
PositiveRange = Annotated[tuple[_Positive, _Positive], AfterValidator(_in_order)]
ShareRange = Annotated[tuple[Probability, Probability], AfterValidator(_in_order)]


class AugmentSettings(BaseModel):
    """Probability of each degradation, and the range it is drawn from, evenly.

    `noise`, `music` and `babble` exclude each other, so they sum to at most 1. What concerns the
    line (codec, loss, comfort noise) happens within `telephone`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    copies: int = Field(6, ge=1, description="copies of each utterance; the first is as it came")
    clean_copies: int = Field(
        1, ge=1, description="how many of them are not degraded; their voices vary as all do"
    )
    short: Probability = Field(0.2, description="cut shorter than 3 s, to 1 s or more")

    speed: Probability = Field(0.6, description="pitch and duration together")
    speed_range: PositiveRange = (0.85, 1.18)
    stretch: Probability = Field(0.0, description="duration alone; above 1 is faster")
    stretch_range: PositiveRange = (0.8, 1.25)
    pitch: Probability = Field(0.0, description="pitch alone")
    pitch_semitones: Range = (-3.0, 3.0)
    time_shift: Probability = Field(0.0, description="later or earlier; silence fills in")
    time_shift_ms: Range = Field((-300.0, 300.0), description="a quarter of the cut at most")

    room: Probability = 0.25
    noise: Probability = 0.45
    gaussian: Probability = Field(0.3, description="share of `noise` that is Gaussian")
    music: Probability = 0.1
    babble: Probability = 0.1
    babble_voices: int = Field(4, ge=1)
    snr_db: Range = (3.0, 25.0)

    equaliser: Probability = 0.4
    equaliser_db: float = Field(8.0, ge=0)
    clipping: Probability = 0.05
    clip_ratio: ShareRange = Field((0.2, 0.7), description="of the peak")
    level: Probability = Field(1.0, description="set to a level; else the recording's own")
    level_dbfs: Range = (-38.0, -14.0)
    gain: Probability = Field(0.0, description="a gain on top of the level")
    gain_db: Range = (-6.0, 6.0)

    telephone: Probability = 0.4
    narrow: Probability = Field(0.5, description="300 to 3400 Hz before the codec")
    codecs: Annotated[dict[Codec, float], AfterValidator(_some_weight)] = Field(
        {"mulaw": 0.6, "alaw": 0.4}, description="weight of each"
    )
    kbps: PositiveRange = Field((4.75, 24.0), description="for codecs with several bit rates")
    comfort_noise: Probability = Field(0.0, description="silences not sent, but made up")
    comfort_noise_dbfs: Range = (-75.0, -55.0)
    packet_loss: Probability = 0.3
    loss_rate: ShareRange = (0.01, 0.1)
    concealment: Annotated[dict[Concealment, float], AfterValidator(_some_weight)] = Field(
        {"repeat": 0.5, "silence": 0.5}, description="weight of each"
    )

    @model_validator(mode="after")
    def _exclusive(self) -> AugmentSettings:
        if self.noise + self.music + self.babble > 1 + 1e-9:
            raise ValueError("noise, music and babble exclude each other: their sum is above 1")
        if self.clean_copies > self.copies:
            raise ValueError(f"clean_copies: there are but {self.copies} copies")
        return self

    @property
    def needs_sounds(self) -> bool:
        """Whether anything here is read from a folder of noise."""
        return self.room > 0 or self.music > 0 or (self.noise > 0 and self.gaussian < 1)
