"""The training loop.

Every random draw of an epoch comes from generators seeded with (seed, epoch), so a run that is
resumed after an epoch goes on exactly as one that was never stopped.
"""

from __future__ import annotations

import csv
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from trainer.audio import Float32, Int16
from trainer.bank import Bank
from trainer.corpora.base import LABELS, Utterance
from trainer.distil import STEP_SAMPLES, Targets, feature_loss, score_loss
from trainer.errors import TrainerError
from trainer.evaluate import (
    Segments,
    corpus_mean_uar,
    segment_logits,
    torch_predictor,
    utterance_scores,
)
from trainer.metrics import Float64, Int64
from trainer.models import Crnn, build
from trainer.recipe import Recipe, TrainSettings

LOG_FIELDS = ("epoch", "loss", "learning_rate", "validation_uar", "telephone_uar", "seconds")


@dataclass(frozen=True, slots=True)
class TrainingData:
    """All that the loop reads.

    Attributes
    ----------
    bank
        segments of the training utterances.
    utterances
        those utterances, in the bank's order.
    validation
        segments under each condition, clean first.
    targets
        a teacher's, where the recipe distils.
    """

    bank: Bank
    utterances: tuple[Utterance, ...]
    validation: tuple[Segments, ...]
    targets: Targets | None = None


def sampling_weights(utterances: Sequence[Utterance], balance: float) -> Float64:
    """Probability of drawing each utterance: float64 [utterances], sum 1.

    Cells are (corpus, label). With `balance` 0 every utterance is as likely, with 1 every cell.
    """
    count = Counter((u.corpus, u.label) for u in utterances)
    weight = np.asarray([count[u.corpus, u.label] ** -balance for u in utterances])
    return np.asarray(weight / weight.sum(), np.float64)


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then half a cosine to zero; `step` counts from 0."""
    warmup = settings.warmup_epochs * settings.steps
    total = settings.epochs * settings.steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1.0, total - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def shift_left(
    audio: Int16, length: Int64, most: int, rng: np.random.Generator
) -> tuple[Float32, Int64, Int64]:
    """Cut up to `most` samples, and at most a fifth, off the start of each segment.

    The cut is in whole steps of a teacher's features.

    Parameters
    ----------
    audio
        int16 [batch, samples]
    length
        int64 [batch].

    Returns
    -------
    float32 in [-1, 1), the new lengths, and the samples cut.
    """
    limit = np.minimum(most, length // 5) // STEP_SAMPLES
    cut = (rng.random(len(length)) * (limit + 1)).astype(np.int64) * STEP_SAMPLES
    shifted = np.zeros(audio.shape, np.float32)
    for row, first in enumerate(cut):
        shifted[row, : audio.shape[1] - first] = audio[row, first:]
    return shifted / np.float32(32768), length - cut, cut


class Student(nn.Module):
    """The model, and in training only a head that predicts the teacher's features."""

    def __init__(self, model: Crnn, components: int) -> None:
        super().__init__()
        self.model = model
        self.regress = nn.Linear(model.step_size, components) if components else None

    def forward(self, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and where there is a teacher its features as predicted for each step."""
        x, mask = self.model.steps(audio, length)
        features = self.regress(x) if self.regress is not None else None
        return self.model.head(self.model.pool(x, mask)), features


def average_of(student: Student, decay: float) -> AveragedModel:
    """Exponential average of weights and buffers, short at first so that it forgets the start."""

    def update(mean: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
        if not mean.is_floating_point():
            return value
        keep = min(decay, (1 + float(count)) / (10 + float(count)))
        return torch.lerp(value, mean, keep)

    return AveragedModel(student, avg_fn=update, use_buffers=True)


class Run:
    """A training run in a folder: `last.pt`, `best.pt`, `log.csv`."""

    def __init__(self, recipe: Recipe, data: TrainingData, folder: Path) -> None:
        self.recipe, self.data, self.folder = recipe, data, folder
        torch.manual_seed(recipe.seed)
        components = data.targets.features.shape[3] if data.targets is not None else 0
        model = build(recipe.model, recipe.frontend, len(LABELS))
        self.student = Student(model, components)
        self.average = average_of(self.student, recipe.train.average_decay)
        self.optimiser = torch.optim.AdamW(
            self.student.parameters(), weight_decay=recipe.train.weight_decay
        )
        self.epoch = 0
        self.best_uar = -1.0
        self._weights = sampling_weights(data.utterances, recipe.train.balance)
        self._labels = np.asarray([LABELS.index(u.label) for u in data.utterances], np.int64)

    def _loss(self, rows: Int64, rng: np.random.Generator) -> Tensor:
        settings, bank = self.recipe.train, self.data.bank
        copies = rng.integers(bank.length.shape[0], size=len(rows))
        shifted, left, cut = shift_left(
            bank.audio[copies, rows], bank.length[copies, rows], settings.shift_samples, rng
        )
        audio, length = torch.from_numpy(shifted), torch.from_numpy(left)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            logits, features = self.student(audio, length)
        logits = logits.float()
        labels = torch.from_numpy(self._labels[rows])
        loss = functional.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        targets, distil = self.data.targets, self.recipe.distil
        if targets is None or distil is None or features is None:
            return loss
        said = torch.from_numpy(targets.logits[copies, rows])
        heard = targets.features[copies, rows].astype(np.float32)
        for row, first in enumerate(cut // STEP_SAMPLES):
            heard[row] = np.roll(heard[row], -first, axis=0)
        weight = distil.label_weight
        return (
            (1 - weight) * loss
            + weight * score_loss(logits, said, distil.temperature)
            + distil.feature_weight
            * feature_loss(features.float(), torch.from_numpy(heard), length)
        )

    def train_epoch(self) -> dict[str, float]:
        """One epoch; returns its line of the log.

        Raises
        ------
        TrainerError
            the loss is no longer a finite number.
        """
        settings = self.recipe.train
        started = time.monotonic()
        torch.manual_seed(self.recipe.seed * 100_003 + self.epoch)
        rng = np.random.default_rng([self.recipe.seed, self.epoch])
        drawn = rng.choice(
            len(self._weights), size=(settings.steps, settings.batch_size), p=self._weights
        )
        self.student.train()
        total = 0.0
        progress = tqdm(drawn, f"epoch {self.epoch + 1}/{settings.epochs}", disable=None)
        for i, rows in enumerate(progress):
            rate = learning_rate(settings, self.epoch * settings.steps + i)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            loss = self._loss(rows, rng)
            if not torch.isfinite(loss):
                raise TrainerError(
                    f"The loss diverged in epoch {self.epoch + 1}: lower train.learning_rate "
                    f"in the recipe. {self.folder / 'best.pt'} keeps the best epoch so far."
                )
            self.optimiser.zero_grad()
            # torch leaves this method without types
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.student.parameters(), settings.gradient_limit)
            self.optimiser.step()
            self.average.update_parameters(self.student)
            total += float(loss.detach())
        self.epoch += 1
        clean, distant = self.validate()
        return {
            "epoch": self.epoch,
            "loss": total / settings.steps,
            "learning_rate": rate,
            "validation_uar": clean,
            "telephone_uar": distant,
            "seconds": time.monotonic() - started,
        }

    def averaged_model(self) -> Crnn:
        """The model with averaged weights, in evaluation mode."""
        student = self.average.module
        assert isinstance(student, Student)
        return student.model.eval()

    def validate(self) -> tuple[float, float]:
        """Corpus-mean UAR of the averaged weights, clean and over the telephone."""
        predict = torch_predictor(self.averaged_model())
        values = []
        for segments in self.data.validation:
            logits = segment_logits(predict, segments)
            values.append(corpus_mean_uar(utterance_scores(logits, segments), segments))
        return values[0], values[-1]

    def save(self, name: str) -> None:
        """Write a checkpoint, whole or not at all.

        Raises
        ------
        TrainerError
            the folder cannot be written; checkpoints already there stay as they are.
        """
        path = self.folder / name
        part = path.with_suffix(".part")
        try:
            torch.save(
                {
                    "recipe": self.recipe.model_dump(mode="json"),
                    "epoch": self.epoch,
                    "best_uar": self.best_uar,
                    "student": self.student.state_dict(),
                    "average": self.average.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                },
                part,
            )
            part.replace(path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise TrainerError(f"{path} cannot be written: {error}") from None

    def resume(self) -> None:
        """Take up `last.pt`.

        Raises
        ------
        TrainerError
            the checkpoint is of another recipe.
        """
        state = read_checkpoint(self.folder / "last.pt")
        theirs = Recipe.model_validate(state["recipe"])
        if theirs != self.recipe:
            keys = [k for k in Recipe.model_fields if getattr(theirs, k) != getattr(self.recipe, k)]
            raise TrainerError(
                f"{self.folder / 'last.pt'} was made with another recipe (it differs in "
                f"{', '.join(keys)}). Resume with the same recipe, or choose another folder."
            )
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.best_uar = state["epoch"], state["best_uar"]

    def train(self) -> None:
        """Train to the last epoch, keeping `last.pt`, `best.pt` and `log.csv`."""
        torch.set_num_threads(self.recipe.train.threads)
        log = self.folder / "log.csv"
        while self.epoch < self.recipe.train.epochs:
            line = self.train_epoch()
            score = (line["validation_uar"] + line["telephone_uar"]) / 2
            best = score > self.best_uar
            self.best_uar = max(score, self.best_uar)
            self.save("last.pt")
            if best:
                self.save("best.pt")
            _append(log, line)
            tqdm.write(
                f"epoch {self.epoch}: loss {line['loss']:.3f}, validation UAR "
                f"{line['validation_uar']:.3f}, telephone {line['telephone_uar']:.3f}, "
                f"{line['seconds']:.0f} s{' *' if best else ''}"
            )


def _append(log: Path, line: dict[str, float]) -> None:
    """Add a line to the log; lines of epochs that a resumed run repeats are replaced."""
    rows: list[dict[str, Any]] = []
    if log.is_file():
        with log.open(newline="") as file:
            rows = [r for r in csv.DictReader(file) if int(r["epoch"]) < line["epoch"]]
    part = log.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, LOG_FIELDS)
        writer.writeheader()
        writer.writerows([*rows, {k: v if k == "epoch" else f"{v:.6g}" for k, v in line.items()}])
    part.replace(log)


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


def load_trained(folder: Path) -> tuple[Recipe, Crnn, int]:
    """Recipe, best model with averaged weights, and its epoch, from a run's folder.

    Raises
    ------
    TrainerError
        there is no readable checkpoint, or it is of another architecture.
    """
    path = folder / "best.pt"
    state = read_checkpoint(path)
    try:
        recipe = Recipe.model_validate(state["recipe"])
        model = build(recipe.model, recipe.frontend, len(LABELS))
        prefix = "module.model."
        weights = {
            key.removeprefix(prefix): value
            for key, value in state["average"].items()
            if key.startswith(prefix)
        }
        model.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        raise TrainerError(f"{path} is of another architecture: {error}") from None
    return recipe, model.eval(), int(state["epoch"])
