"""One run: a model trained on one fold, and what it then says of the others' recordings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.audio import to_float
from trainer.batches import TrainingData
from trainer.checkpoint import BEST, LAST, load_trained
from trainer.distributed import World, choose_device
from trainer.errors import TrainerError
from trainer.evaluate import Hearing, logits_only, predict_clips, torch_hearing
from trainer.logs import LOG
from trainer.metrics import Int64
from trainer.models import ForestSettings, SvmSettings, is_classical
from trainer.predictions import Predictions, save_predictions
from trainer.prepare import Stock
from trainer.protocols import Fold, ProtocolSettings
from trainer.recipe import Recipe
from trainer.refit import refit_best
from trainer.splits import PARTS, Part
from trainer.train import Run

CLASSICAL, PREDICTIONS, SPLIT = "model.onnx", "predictions.npz", "split.json"
FILES = (LAST, BEST, LOG, CLASSICAL, PREDICTIONS, SPLIT, "error.txt")
"""What a run's folder holds, beside TensorBoard's events."""

_BATCH = 64
_TESTED: tuple[Part, ...] = ("validation", "test")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises
    ------
    TrainerError
        it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainerError(f"{folder} cannot be made: {error.strerror}.") from None


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises
    ------
    TrainerError
        the folder cannot be written, or the disk is full.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TrainerError(f"{path} cannot be written: {error.strerror}.") from None


def describe_split(protocol: ProtocolSettings, fold: Fold) -> str:
    """`split.json`: who is in which part."""
    split = fold.split
    content = {
        "protocol": protocol.model_dump(mode="json"),
        "fold": fold.name,
        "speaker_dependent": split.speaker_dependent,
        "utterances": {part: len(split.part(part)) for part in PARTS},
        "speakers": split.speakers(),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class _Rows:
    """A bank's segments as the classical models are fitted on them; can be gone through anew."""

    data: TrainingData
    labels: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        bank, utterances = self.data.bank, self.data.utterances
        truth = np.asarray([self.labels.index(u.label) for u in utterances], np.int64)
        group = self._groups()
        for copy in range(bank.length.shape[0]):
            for first in range(0, len(utterances), _BATCH):
                rows = np.arange(first, min(first + _BATCH, len(utterances)))
                audio = to_float(bank.take(np.full(len(rows), copy), rows))
                arrays = (audio, bank.length[copy, rows], truth[rows], group[rows])
                yield tuple(torch.from_numpy(a) for a in arrays)  # type: ignore[misc]  # four

    def _groups(self) -> Int64:
        """Speakers, or utterances where one speaker is alone."""
        names = [u.speaker_id for u in self.data.utterances]
        if len(set(names)) == 1:
            return np.arange(len(names))
        return np.unique(names, return_inverse=True)[1].astype(np.int64)


def fit(recipe: Recipe, data: TrainingData, folder: Path) -> None:
    """Fit a forest or a support vector machine, and keep it as an ONNX file.

    Raises
    ------
    TrainerError
        see `trainer.models.classical.fit_classical`; or the folder cannot be written.
    """
    import onnx

    from trainer.models.classical import fit_classical

    assert isinstance(recipe.model, ForestSettings | SvmSettings)
    torch.set_num_threads(recipe.train.threads)
    labels = recipe.label_map.labels
    rows = _Rows(data, labels)
    model = fit_classical(recipe.model, recipe.frontend, rows, len(labels), recipe.seed)
    part = folder / f"{CLASSICAL}.part"
    try:
        onnx.save(model, str(part))
        part.replace(folder / CLASSICAL)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TrainerError(f"{folder / CLASSICAL} cannot be written: {error.strerror}.") from None


def load_hearing(recipe: Recipe, folder: Path) -> Hearing:
    """The trained model of a run's folder, ready to hear.

    Raises
    ------
    TrainerError
        there is none, or it is of another architecture.
    """
    if is_classical(recipe.model):
        from trainer.graph import onnx_predictor

        return logits_only(onnx_predictor(folder / CLASSICAL, recipe.train.threads))
    _, model, _ = load_trained(folder)
    return torch_hearing(model.to(choose_device(recipe.train, World())))


def predict(recipe: Recipe, stock: Stock, fold: Fold, folder: Path) -> None:
    """What a run's model says of validation and test under every condition, and the file of it.

    Raises
    ------
    TrainerError
        see `load_hearing`; or the file cannot be written.
    """
    hear = load_hearing(recipe, folder)
    found: list[Predictions] = []
    for part in _TESTED:
        clips = stock.part(fold.split, part)
        if len(clips):
            found += predict_clips(hear, clips, part, recipe.label_map.labels)
    save_predictions(folder / PREDICTIONS, found)


def complete(
    recipe: Recipe,
    protocol: ProtocolSettings,
    fold: Fold,
    stock: Stock,
    folder: Path,
    world: World,
) -> None:
    """Train from where the folder stands, predict, and leave the folder complete.

    Raises
    ------
    TrainerError
        the fold cannot be trained, the loss diverges, or the folder cannot be written.
    """

    def start() -> None:
        make_folder(folder)
        write_text(folder / SPLIT, describe_split(protocol, fold))

    world.only_leader(start)
    data = world.leader_first(lambda: stock.training_data(recipe, fold))
    if is_classical(recipe.model):
        world.only_leader(lambda: fit(recipe, data, folder))
    else:
        run = Run(recipe, data, folder, world)
        if (folder / LAST).is_file():
            run.resume()
        run.train()
        world.only_leader(lambda: refit_best(run))
    world.only_leader(lambda: predict(recipe, stock, fold, folder))
