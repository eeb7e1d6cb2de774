"""The recipe of a voice-activity model, as its TOML file has it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.errors import TrainerError

SHIPPED_RECIPE = Path(__file__).with_name("serd-vad.toml")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SpeechSettings(_Table):
    """Whose voices train and whose choose, as ``corpus/speaker``."""

    corpora: tuple[str, ...] = ("ravdess", "tess", "savee", "emodb", "emovo", "nemo")
    validation: tuple[str, ...] = Field(min_length=1)


class NoiseSettings(_Table):
    """Which recordings of noise, music and rooms are kept for validation."""

    held_out_every: int = Field(5, ge=2, description="every n-th environmental sound")
    held_out_music: tuple[str, ...] = Field(min_length=1)
    held_out_rooms: tuple[str, ...] = ()


class MixtureSettings(_Table):
    """How many mixtures are made, and how long each is."""

    train: int = Field(3584, ge=1)
    hard: int = Field(768, ge=0, description="more for training, of music and loud noise")
    alone: int = Field(1024, ge=0, description="more for training, without speech")
    validation: int = Field(40, ge=1, description="mixtures of each condition")
    seconds: float = Field(20.48, ge=1, le=120)


class FrontendSettings(_Table):
    """Mel bands: `low` below 3.8 kHz, which both rates have, `high` up to 7.6 kHz at 16 kHz."""

    low: int = Field(40, ge=8, le=80)
    high: int = Field(8, ge=0, le=40)


class NetworkSettings(_Table):
    """A dense layer over the bands of a frame, then recurrent layers."""

    dense: int = Field(96, ge=4, le=512)
    hidden: int = Field(64, ge=4, le=256)
    layers: int = Field(2, ge=1, le=4)


class TargetSettings(_Table):
    """What the network learns: a weighted mean of three targets, weights that sum to 1.

    `label` is exact; `clean` is the teacher on each voice alone before anything was done to it;
    `noisy` is the teacher on the finished mixture.
    """

    label: float = Field(0.6, ge=0, le=1)
    clean: float = Field(0.2, ge=0, le=1)
    noisy: float = Field(0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.label + self.clean + self.noisy - 1) > 1e-6:
            raise ValueError("label, clean and noisy must sum to 1")
        return self


class TrainSettings(_Table):
    """The loop."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(128, ge=1)
    frames: int = Field(160, ge=8, description="a mixture is learnt in pieces of so many")
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    warm_up: float = Field(0.05, ge=0, lt=1, description="share of the steps")
    carry: float = Field(
        0.5, ge=0, le=1, description="share of the rows that begin in the state another left"
    )
    fill: float = Field(
        0.5, ge=0, le=1, description="share of the rows whose pauses get another sound"
    )
    fill_db: tuple[float, float] = Field(
        (-20.0, 6.0), description="level of that sound over the row's own mean"
    )
    gain_db: float = Field(6.0, ge=0, description="random change of level, either way")
    clip_gradient: float = Field(1.0, gt=0)


class VadRecipe(_Table):
    """Everything that makes a voice-activity model."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9-]*$")
    seed: int = Field(1, ge=0)
    speech: SpeechSettings
    noise: NoiseSettings
    mixture: MixtureSettings = MixtureSettings()
    frontend: FrontendSettings = FrontendSettings()
    network: NetworkSettings = NetworkSettings()
    targets: TargetSettings = TargetSettings()
    train: TrainSettings = TrainSettings()


def load_vad_recipe(path: Path) -> VadRecipe:
    """Read a recipe.

    Raises
    ------
    TrainerError
        the file cannot be read, is no TOML, or a key is unknown, missing or wrong.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise TrainerError(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainerError(f"{path} is no TOML: {error}") from None
    try:
        return VadRecipe.model_validate(content)
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
            for detail in error.errors(include_url=False)
        ]
        raise TrainerError("\n".join(lines)) from None
