"""The loop in which a compact encoder learns to say what its teacher says.

The loss is the mean squared difference at each step, of values that are standardised over the
recordings, layer by layer; and that of their means and deviations over time, which is what models
that are built on the encoder look at.
"""

from __future__ import annotations

import copy
import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from trainer.backbones.compact import Compact, save_compact
from trainer.checkpoint import LAST, read_checkpoint
from trainer.compact.beginning import Standard, begin, compact_settings, measure_standard
from trainer.compact.lessons import Lessons, load_teacher, make_lessons
from trainer.compact.settings import EncoderRecipe, TrainSettings
from trainer.errors import TrainerError
from trainer.features import time_mask
from trainer.metrics import Int64
from trainer.one_run import make_folder, write_text
from trainer.prepare import Places
from trainer.saving import write_checkpoint

ENCODER, LOG = "encoder.pt", "log.csv"


def train_encoder(
    recipe: EncoderRecipe,
    places: Places,
    out: Path,
    processes: int = 1,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Make the lessons and train on them: path of `encoder.pt` under `out`.

    `out` also gets `log.csv`, and `last.pt` with everything that this goes on from when it is
    called again after a stop, to the same weights.

    Parameters
    ----------
    processes, tell
        see `make_lessons`.

    Raises
    ------
    TrainerError
        the loss is not finite any more, or `out` holds the run of another recipe or of other
        recordings; see also `load_teacher`, `compact_settings` and `make_lessons`.
    """
    teacher = load_teacher(recipe.teacher)
    settings = compact_settings(recipe, teacher)
    state = _saved(recipe, out)
    make_folder(out)
    lessons = make_lessons(recipe, settings, teacher, places, processes, progress, tell)
    standard = measure_standard(lessons, recipe.seed)
    encoder = begin(teacher, settings, lessons, standard, recipe.seed)
    learning = Learning(recipe, encoder, lessons, standard)
    if state is not None:
        if state["lessons"] != lessons.key:
            raise TrainerError(
                f"{out / LAST} was made of other recordings or by another teacher: "
                "name another folder or remove it."
            )
        learning.load(state)
    every, steps = recipe.train.log_steps, recipe.train.steps
    for step in trange(learning.step, steps, desc="training", disable=not progress):
        learning.learn()
        if (step + 1) % every == 0 or step + 1 == steps:
            learning.log()
            write_text(out / LOG, learning.table())
            write_checkpoint(out / LAST, learning.state())
    save_compact(
        learning.average,
        out / ENCODER,
        recipe=recipe.model_dump(mode="json", exclude_none=True),
        speakers=list(lessons.speakers),
    )
    return out / ENCODER


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Of a step, counted from 0."""
    fallen = 0.5 - 0.5 * math.cos(math.pi * step / settings.steps)
    rate = settings.learning_rate * (1 - (1 - settings.final_rate) * fallen)
    return rate * min(1.0, (step + 1) / settings.warm_up_steps)


def lesson_loss(
    told: Tensor, target: Tensor, steps: Tensor, statistics_weight: float
) -> tuple[Tensor, Tensor]:
    """The loss, and the mean squared difference at valid steps of each layer.

    Parameters
    ----------
    told, target
        float32 [batch, layers, steps, width], standardised.
    steps
        int64 [batch], those that are valid.
    """
    mask = time_mask(steps, told.shape[2])
    weight = (mask / mask.sum())[:, None, :]
    by_layer = (((told - target) ** 2).mean(dim=3) * weight).sum(dim=(0, 2))
    loss = by_layer.sum()
    if statistics_weight:
        apart = (_statistics(told, mask) - _statistics(target, mask)) ** 2
        loss = loss + statistics_weight * apart.mean(dim=(0, 2)).sum()
    return loss, by_layer.detach()


def _statistics(x: Tensor, mask: Tensor) -> Tensor:
    """Mean and deviation over valid steps: [batch, layers, 2 * width]."""
    weight = (mask / mask.sum(dim=1, keepdim=True))[:, None, :, None]
    mean = (x * weight).sum(dim=2)
    spread = ((x - mean[:, :, None]) ** 2 * weight).sum(dim=2)
    # The root has no slope at 0, which one step alone has.
    return torch.cat([mean, torch.sqrt(spread + 1e-6)], dim=2)


class Learning:
    """The encoder, the mean of its late weights, and how far they are.

    Attributes
    ----------
    average
        an encoder with the exponential mean of the weights: what training is for.
    step
        of the next batch, from 0.
    """

    def __init__(
        self, recipe: EncoderRecipe, encoder: Compact, lessons: Lessons, standard: Standard
    ) -> None:
        self._recipe, self._lessons, self._standard = recipe, lessons, standard
        self._encoder = encoder
        self.average = copy.deepcopy(encoder).requires_grad_(False)
        settings = recipe.train
        self._optimiser = torch.optim.AdamW(
            encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.step = 0
        self._rows: list[list[str]] = []
        self._sums: list[Tensor] = []
        self._batches = _like_length(lessons.frames, settings.batch_size)
        self._order: tuple[int, Int64] | None = None

    def learn(self) -> None:
        """One batch.

        Raises
        ------
        TrainerError
            the loss is not finite.
        """
        settings = self._recipe.train
        mel, told, frames = self._lessons.take(*self._drawn())
        half = settings.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            said, steps = self._encoder.tell(mel, frames)
        loss, by_layer = lesson_loss(
            said.float(), self._standard(told), steps, settings.statistics_weight
        )
        if not torch.isfinite(loss):
            raise TrainerError(
                f"The loss is not finite at step {self.step}: train.learning_rate is too high?"
            )
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(settings, self.step)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self._encoder.parameters(), settings.gradient_limit)
        self._optimiser.step()
        # At first the mean is of few steps, so that the beginning is soon forgotten.
        decay = min(settings.average_decay, 1 - 1 / (self.step + 10))
        with torch.no_grad():
            for mean, value in zip(
                self.average.parameters(), self._encoder.parameters(), strict=True
            ):
                mean.lerp_(value, 1 - decay)
        self._sums.append(torch.cat([loss.detach()[None], by_layer]))
        self.step += 1

    def log(self) -> None:
        """Add a line on the batches since the last one."""
        means = torch.stack(self._sums).mean(dim=0).tolist()
        rate = learning_rate(self._recipe.train, self.step - 1)
        self._rows.append([str(self.step), f"{rate:.3g}", *(f"{value:.5f}" for value in means)])
        self._sums = []

    def table(self) -> str:
        """The log as CSV: steps, rate, loss, and the error of each of the teacher's layers."""
        file = io.StringIO()
        layers = (f"layer_{layer}" for layer in self._recipe.teacher.layers)
        table = csv.writer(file, lineterminator="\n")
        table.writerows([["step", "rate", "loss", *layers], *self._rows])
        return file.getvalue()

    def state(self) -> dict[str, Any]:
        """All that `load` needs, right behind a `log`."""
        return {
            "recipe": self._recipe.model_dump(mode="json"),
            "lessons": self._lessons.key,
            "step": self.step,
            "rows": self._rows,
            "model": self._encoder.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._encoder.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step, self._rows = int(state["step"]), state["rows"]

    def _drawn(self) -> tuple[Int64, Int64]:
        """Copies and utterances of this step's batch: every batch once, then all anew."""
        number, place = divmod(self.step, len(self._batches))
        if self._order is None or self._order[0] != number:
            rng = np.random.default_rng([self._recipe.seed, 2, number])
            self._order = number, rng.permutation(len(self._batches))
        utterances = self._lessons.frames.shape[1]
        segments = np.sort(self._batches[self._order[1][place]])
        return segments // utterances, segments % utterances


def _like_length(frames: Int64, size: int) -> list[Int64]:
    """Batches of segments of like length: padding is paid for. None is left out."""
    order = np.argsort(frames.reshape(-1), kind="stable")
    return np.array_split(order, max(1, len(order) // size))


def _saved(recipe: EncoderRecipe, out: Path) -> dict[str, Any] | None:
    """Where a run in `out` had come to, if there is one."""
    if not (out / LAST).is_file():
        return None
    state = read_checkpoint(out / LAST)
    if state["recipe"] != recipe.model_dump(mode="json"):
        raise TrainerError(f"{out / LAST} is of another recipe: name another folder or remove it.")
    return state
