"""Recipes: the TOML files that say what is trained on what, and how."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.augment import AugmentSettings
from trainer.corpora import REGISTRY
from trainer.errors import TrainerError
from trainer.features import FrontendSettings
from trainer.models import CrnnSettings
from trainer.splits import SpeakerSplit

RECIPES = Path(__file__).parent / "recipes"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainSettings(_Section):
    """The optimiser's settings. An epoch is `steps` batches."""

    epochs: int = Field(30, ge=1)
    steps: int = Field(120, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(1.5e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    balance: float = Field(0.5, ge=0, le=1, description="0: as counted, 1: all cells alike")
    average_decay: float = Field(0.995, ge=0, lt=1)
    gradient_limit: float = Field(2.0, gt=0)
    bfloat16: bool = Field(False, description="mixed precision, where the processor has it")
    threads: int = Field(1, ge=1)
    shift_samples: int = Field(3200, ge=0, description="most that a segment's start is cut")


class DistilSettings(_Section):
    """Soft labels and features of a pretrained encoder, see `trainer.teacher`."""

    encoder: Literal["whisper-tiny.en"] = "whisper-tiny.en"
    layers: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (3, 4)
    temperature: float = Field(2.0, gt=0)
    label_weight: float = Field(0.5, ge=0, le=1)
    feature_weight: float = Field(1.0, ge=0)
    components: int = Field(128, ge=1)
    head_steps: int = Field(3000, ge=1)
    folds: int = Field(5, ge=1, description="heads fitted on other speakers than they score")


class Recipe(_Section):
    """One training run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    seed: int = 0
    corpora: dict[str, SpeakerSplit]
    frontend: FrontendSettings = FrontendSettings()
    model: CrnnSettings = CrnnSettings()
    augment: AugmentSettings = AugmentSettings()
    train: TrainSettings = TrainSettings()
    distil: DistilSettings | None = None

    @model_validator(mode="after")
    def _known_corpora(self) -> Recipe:
        if not self.corpora:
            raise ValueError("corpora names no corpus")
        for name in self.corpora:
            if name not in REGISTRY:
                raise ValueError(f"corpora.{name}: there is no such corpus")
        if not any(split.validation for split in self.corpora.values()):
            raise ValueError("corpora: no corpus names a validation speaker")
        return self


def load_recipe(name: str) -> Recipe:
    """Read a recipe by path, or by the name of one that comes with the trainer.

    Raises
    ------
    TrainerError
        no such recipe, not TOML, or keys that are unknown or out of range; all of
        them are listed.
    """
    path = Path(name)
    if not path.is_file():
        path = RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise TrainerError(f"There is no recipe {name!r}: neither a file nor one of {known}.")
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text("utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise TrainerError(f"{path} is not valid TOML: {error}.") from None
    except ValidationError as error:
        faults = [
            f"  {'.'.join(str(part) for part in fault['loc']) or 'recipe'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise TrainerError("\n".join([f"{path}:", *faults])) from None
