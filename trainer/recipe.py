"""Recipes: the TOML files that say what is trained on what, how, and how it is measured.

A file with one `[model]` is one `Recipe`. A file with several, `[models.NAME]`, is a recipe for
each, alike but for the model and what its table says of `frontend` (instead of the file's) and
`train` (on top of the file's).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from trainer.augment import AugmentSettings
from trainer.corpora.reading import check_sections
from trainer.corpora.settings import CorpusSettings
from trainer.errors import TrainerError
from trainer.features import FrontendSettings, LogMelSettings
from trainer.labels import DEFAULT, LabelMap, parse_labels
from trainer.models import CrnnSettings, ModelSettings, is_classical
from trainer.models.backbone import BackboneSettings
from trainer.preparation import PrepareSettings
from trainer.protocol_settings import HeldOut, ProtocolSettings
from trainer.schema import Section, faults, listing, read_toml

RECIPES = Path(__file__).parent / "recipes"

# A folder's name in the experiment's tree.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class TrainSettings(Section):
    """The optimiser's settings, and when to stop.

    An epoch is `steps` batches drawn at random; with `steps = 0` it is one pass over every copy
    of every utterance. `balance` says how much rare cells of corpus and label count: by drawing
    them more often, or in a pass by their weight in the loss.
    """

    epochs: int = Field(30, ge=1)
    steps: int = Field(120, ge=0, description="0: a pass over all copies")
    batch_size: int = Field(64, ge=2)
    optimiser: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = Field(1.5e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_epochs: float = Field(1.0, ge=0)
    plateau_patience: int = Field(3, ge=1, description="epochs without a better validation")
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    patience: int = Field(0, ge=0, description="stop so many epochs after the best; 0: never")
    select: tuple[Literal["clean", "telephone-mulaw-8k", "whole-file"], ...] = Field(
        ("clean", "telephone-mulaw-8k"),
        min_length=1,
        description="conditions whose mean UAR on validation chooses the epoch",
    )
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    balance: float = Field(0.5, ge=0, le=1, description="0: as counted, 1: all cells alike")
    mixup: float = Field(0.0, ge=0, description="alpha; 0: off")
    average_decay: float = Field(0.995, ge=0, lt=1, description="of the weights; 0: off")
    gradient_limit: float = Field(2.0, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: int = Field(1, ge=1)
    shift_samples: int | None = Field(
        None,
        ge=0,
        description="most that a segment's start is cut; left out: 3200 before log-mel, else 0",
    )

    @model_validator(mode="before")
    @classmethod
    def _first_name_of_precision(cls, values: Any) -> Any:
        if isinstance(values, dict) and "bfloat16" in values and "precision" not in values:
            values = dict(values)
            values["precision"] = "bf16" if values.pop("bfloat16") else "fp32"
        return values


class DistilSettings(Section):
    """Soft labels and features of a pretrained encoder, see `trainer.teacher`."""

    encoder: Literal["whisper-tiny.en"] = "whisper-tiny.en"
    layers: tuple[Annotated[int, Field(ge=1, le=4)], ...] = Field(
        (1, 2, 3, 4), min_length=1, description="whose statistics the heads are given"
    )
    step_layers: tuple[Annotated[int, Field(ge=1, le=4)], ...] = Field(
        (2, 3, 4), min_length=1, description="whose mean the student predicts step by step"
    )
    temperature: float = Field(2.0, gt=0)
    label_weight: float = Field(0.5, ge=0, le=1, description="of the heads' scores; rest: labels")
    feature_weight: float = Field(1.0, ge=0, description="of the steps' loss")
    statistics_weight: float = Field(0.5, ge=0, description="of the statistics' loss")
    components: int = Field(128, ge=1)
    head_steps: int = Field(1800, ge=1)
    folds: int = Field(
        5, ge=2, description="heads, where the protocol's folds do not divide the speakers"
    )

    @model_validator(mode="after")
    def _among(self) -> DistilSettings:
        for layer in self.step_layers:
            if layer not in self.layers:
                raise ValueError(f"step_layers: layer {layer} is not among layers")
        return self


class RefitSettings(Section):
    """The last layer fitted anew after training, see `trainer.refit`."""

    copies: int = Field(3, ge=1, description="of each utterance, from the first on")
    balance: float = Field(0.9, ge=0, le=1, description="as `train.balance`")
    penalty: float = Field(0.01, ge=0, description="on the squared weights")
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    share: float = Field(0.5, gt=0, le=1, description="of what is fitted; rest: as trained")


class Recipe(Section):
    """One model, how it is trained, and by which protocols it is measured."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    seed: int = Field(0, ge=0)
    labels: str | dict[str, tuple[str, ...]] = DEFAULT
    corpora: dict[str, CorpusSettings]
    protocols: tuple[ProtocolSettings, ...] = (HeldOut(),)
    frontend: FrontendSettings = LogMelSettings()
    model: ModelSettings = CrnnSettings()
    prepare: PrepareSettings = PrepareSettings()
    augment: AugmentSettings = AugmentSettings()
    train: TrainSettings = TrainSettings()
    distil: DistilSettings | None = None
    refit: RefitSettings | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def _known_labels(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = {k: (v,) if isinstance(v, str) else v for k, v in value.items()}
        try:
            parse_labels(value)
        except TrainerError as error:
            raise ValueError(str(error).removeprefix("labels: ")) from None
        return value

    @field_validator("protocols")
    @classmethod
    def _apart(cls, protocols: tuple[ProtocolSettings, ...]) -> tuple[ProtocolSettings, ...]:
        if not protocols:
            raise ValueError("no protocol is named")
        names = [protocol.name.lower() for protocol in protocols]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two protocols are called {name!r}: give them names")
        return protocols

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        check_sections(self.corpora)
        if self.distil is not None and is_classical(self.model):
            raise ValueError(f"distil needs a network, and model.kind is {self.model.kind!r}")
        if self.refit is not None and not isinstance(self.model, CrnnSettings):
            raise ValueError(f"refit needs model.kind 'crnn', and it is {self.model.kind!r}")
        if self.distil is not None and self.train.mixup:
            raise ValueError("distil and train.mixup exclude each other: a teacher hears one voice")
        for name in self.model.experts if isinstance(self.model, BackboneSettings) else ():
            if name not in self.corpora:
                raise ValueError(f"model.experts: {name!r} is none of {', '.join(self.corpora)}")
        return self

    @property
    def label_map(self) -> LabelMap:
        """What the model tells apart."""
        return parse_labels(self.labels)

    @property
    def shift_samples(self) -> int:
        """Most that a training segment's start is cut anew each time."""
        if self.train.shift_samples is not None:
            return self.train.shift_samples
        hears_log_mel = isinstance(self.frontend, LogMelSettings)
        return 3200 if hears_log_mel and not isinstance(self.model, BackboneSettings) else 0


def find_recipe(name: str) -> Path:
    """The file of a recipe, by path or by the name of one that comes with the trainer.

    Raises
    ------
    TrainerError
        there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    path = RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise TrainerError(f"There is no recipe {name!r}: neither a file nor one of {known}.")
    return path


def load_recipes(name: str) -> dict[str, Recipe]:
    """Every model's recipe of a file, by the model's name; a lone `[model]` is called by its kind.

    Raises
    ------
    TrainerError
        no such recipe, not TOML, or keys that are unknown or out of range; all of
        them are listed.
    """
    path = find_recipe(name)
    return parse_recipes(read_toml(path), path)


def load_recipe(name: str) -> Recipe:
    """The recipe of a file with one model.

    Raises
    ------
    TrainerError
        see `load_recipes`; or there are several models.
    """
    found = load_recipes(name)
    if len(found) > 1:
        raise TrainerError(f"Recipe {name} has several models: {', '.join(found)}.")
    return next(iter(found.values()))


def parse_recipes(values: Mapping[str, Any], path: Path) -> dict[str, Recipe]:
    """`load_recipes` of what a file holds; `path` is named in errors."""
    shared = {key: value for key, value in values.items() if key != "models"}
    models = values.get("models")
    problems: list[str] = []
    found: dict[str, Recipe] = {}
    if models is None:
        recipe = _parse(shared, problems, {})
        if recipe is not None:
            found[recipe.model.kind] = recipe
    elif "model" in values or not isinstance(models, Mapping) or not models:
        raise TrainerError(f"{path}: give one [model], or several as [models.NAME].")
    else:
        for name, table in models.items():
            recipe = _variant(shared, name, table, problems)
            if recipe is not None:
                found[name] = recipe
    if problems:
        raise TrainerError(listing(path, problems))
    return found


def _variant(
    shared: Mapping[str, Any], name: str, table: Any, problems: list[str]
) -> Recipe | None:
    if not isinstance(table, Mapping) or not _NAME.fullmatch(name):
        problems.append(f"models.{name}: must be a table whose name is letters, digits and . _ -")
        return None
    values = dict(shared)
    values["model"] = {k: v for k, v in table.items() if k not in ("frontend", "train")}
    at = {"model": f"models.{name}"}
    if "frontend" in table:
        values["frontend"] = table["frontend"]
        at["frontend"] = f"models.{name}.frontend"
    if "train" in table:
        values["train"] = {**shared.get("train", {}), **table["train"]}
        at |= {f"train.{key}": f"models.{name}.train.{key}" for key in table["train"]}
    return _parse(values, problems, at)


def _parse(values: Mapping[str, Any], problems: list[str], at: Mapping[str, str]) -> Recipe | None:
    """The recipe, or None and its faults; `at` says where keys come from."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        for fault in faults(Recipe, error):
            key, colon, text = fault.partition(":")
            for ours, theirs in at.items():
                if key == ours or key.startswith(f"{ours}."):
                    key = theirs + key[len(ours) :]
                    break
            problems.append(f"{key}{colon}{text}")
        return None


def dump_recipes(recipes: Mapping[str, Recipe]) -> str:
    """TOML of recipes of one file, every default filled in, for `parse_recipes` to read again."""
    import tomli_w

    plain = {
        name: recipe.model_dump(mode="json", exclude_none=True) for name, recipe in recipes.items()
    }
    first = next(iter(plain.values()))
    if len(plain) == 1:
        return tomli_w.dumps(first)
    own = ("model", "frontend", "train")
    shared = {key: value for key, value in first.items() if key not in own}
    models = {
        name: {**values["model"], "frontend": values["frontend"], "train": values["train"]}
        for name, values in plain.items()
    }
    return tomli_w.dumps({**shared, "models": models})
