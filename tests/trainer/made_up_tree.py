"""The folder of an experiment as training leaves it, its models untrained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from tests.trainer.made_up_experiment import made_up_predictions
from trainer.corpora import Utterance
from trainer.experiment import load_resolved
from trainer.models import build
from trainer.one_run import describe_split
from trainer.predictions import CONDITIONS, Condition, Predictions, save_predictions
from trainer.prepare import Places, find_folds, read_utterances
from trainer.protocols import Fold, ProtocolSettings
from trainer.recipe import Recipe, dump_recipes, load_recipes
from trainer.saving import write_checkpoint
from trainer.splits import Part


def grow(
    recipe_path: Path, shared: Path, folder: Path, failed: Sequence[str] = (), sharp: float = 1.0
) -> Path:
    """Write the tree of a recipe; `failed` folds, as PROTOCOL/MODEL/FOLD, have no files.

    Logits are right more often than not, times `sharp`.
    """
    folder.mkdir(parents=True)
    recipes = load_recipes(str(recipe_path))
    (folder / "recipe.toml").write_text(dump_recipes(recipes), "utf-8")
    recipes = load_resolved(folder)
    recipe = next(iter(recipes.values()))
    utterances = read_utterances(recipe, Places(shared, folder / "cache"), print)
    runs = []
    for protocol in recipe.protocols:
        for model, own in recipes.items():
            for fold in find_folds(recipe, protocol, utterances):
                at = f"{protocol.name}/{model}/{fold.name}"
                state, reason = ("failed", "the loss diverged") if at in failed else ("done", None)
                runs.append(
                    {
                        "protocol": protocol.name,
                        "model": model,
                        "fold": fold.name,
                        "folder": at,
                        "state": state,
                        "reason": reason,
                    }
                )
                if state == "done":
                    _run(own, protocol, fold, folder / at, sharp)
    record = {
        "version": 1,
        "name": recipe.name,
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "runs": runs,
    }
    (folder / "experiment.json").write_text(json.dumps(record), "utf-8")
    return folder


def _run(
    recipe: Recipe, protocol: ProtocolSettings, fold: Fold, folder: Path, sharp: float
) -> None:
    folder.mkdir(parents=True)
    (folder / "split.json").write_text(describe_split(protocol, fold), "utf-8")
    torch.manual_seed(0)
    labels = recipe.label_map.labels
    state = build(recipe.model, recipe.frontend, len(labels)).state_dict()
    write_checkpoint(
        folder / "best.pt",
        {
            "recipe": recipe.model_dump(mode="json"),
            "average": {f"module.model.{name}": value for name, value in state.items()},
            "epoch": 7,
        },
    )
    parts: tuple[Part, ...] = ("validation", "test")
    save_predictions(
        folder / "predictions.npz",
        [
            _said(part, fold.split.part(part), condition, labels, sharp)
            for part in parts
            for condition in CONDITIONS
            if fold.split.part(part)
        ],
    )


def _said(
    part: Part,
    utterances: Sequence[Utterance],
    condition: Condition,
    labels: Sequence[str],
    sharp: float,
) -> Predictions:
    found = made_up_predictions(
        part,
        condition,
        labels,
        [str(u.path) for u in utterances],
        [labels.index(u.label) for u in utterances],
        [u.speaker for u in utterances],
        utterances[0].corpus,
        np.random.default_rng(crc32("".join(u.path.name for u in utterances).encode())),
    )
    found.logits[:] *= sharp
    return found
