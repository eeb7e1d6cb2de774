"""Checkpoints of a run, read with a sentence for what is wrong; `trainer.saving` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainer.errors import TrainerError
from trainer.models import EmotionModel, build
from trainer.recipe import Recipe

LAST, BEST = "last.pt", "best.pt"

# What a run does not depend on: by whom it is measured, and where it happens to be computed.
_APART = ("protocols",)
_APART_IN_TRAIN = ("threads", "device")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content.

    Raises
    ------
    TrainerError
        the file is missing, cut short, or not a checkpoint.
    """
    if not path.is_file():
        raise TrainerError(f"{path} does not exist: is this the folder of a training run?")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise TrainerError(f"{path} is not a checkpoint: {error}") from None
    if not isinstance(state, dict) or "recipe" not in state:
        raise TrainerError(f"{path} is not a checkpoint of this trainer.")
    return state


def differences(ours: Recipe, theirs: Recipe) -> list[str]:
    """Keys in which two recipes make different runs."""
    found = []
    for key in Recipe.model_fields:
        first, second = getattr(ours, key), getattr(theirs, key)
        if key == "train":
            found += [
                f"train.{k}"
                for k in type(first).model_fields
                if k not in _APART_IN_TRAIN and getattr(first, k) != getattr(second, k)
            ]
        elif key not in _APART and first != second:
            found.append(key)
    return found


def check_same_run(path: Path, state: dict[str, Any], recipe: Recipe) -> None:
    """Refuse to go on from a checkpoint of another recipe.

    Raises
    ------
    TrainerError
        names the keys that differ.
    """
    try:
        theirs = Recipe.model_validate(state["recipe"])
    except ValueError:
        raise TrainerError(f"{path} was made by another version of the trainer.") from None
    keys = differences(recipe, theirs)
    if keys:
        raise TrainerError(
            f"{path} was made with another recipe (it differs in {', '.join(keys)}). "
            "Resume with the same recipe, or choose another folder."
        )


def load_trained(folder: Path) -> tuple[Recipe, EmotionModel, int]:
    """Recipe, best model with averaged weights, and its epoch, from a run's folder.

    Raises
    ------
    TrainerError
        there is no readable checkpoint, or it is of another architecture.
    """
    path = folder / BEST
    state = read_checkpoint(path)
    try:
        recipe = Recipe.model_validate(state["recipe"])
        model = build(recipe.model, recipe.frontend, len(recipe.label_map.labels))
        prefix = "module.model."
        weights = {
            key.removeprefix(prefix): value
            for key, value in state["average"].items()
            if key.startswith(prefix)
        }
        model.load_state_dict(weights)
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainerError(f"{path} is of another architecture: {error}") from None
    return recipe, model.eval(), int(state["epoch"])
