"""The training loop.

Every random draw of an epoch comes from generators seeded with (seed, epoch), so a run that is
resumed after an epoch goes on exactly as one that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from trainer.audio import Float32, to_float
from trainer.batches import Batch, Batches, TrainingData
from trainer.checkpoint import (
    BEST,
    LAST,
    check_same_run,
    read_checkpoint,
)
from trainer.distil import feature_loss, score_loss
from trainer.distributed import World, choose_device, parallel, share_batch_norm
from trainer.errors import TrainerError
from trainer.evaluate import corpus_mean_uar, segment_logits, softmax, utterance_scores
from trainer.feature_bank import Given, measure
from trainer.features import FrameFeatures, LogMel
from trainer.logs import Line, Logs
from trainer.metrics import Int64
from trainer.models import EmotionModel, build
from trainer.models.backbone import Backbone
from trainer.recipe import Recipe
from trainer.saving import write_checkpoint
from trainer.schedule import Progress, learning_rate

_UAR = {
    "clean": "validation_uar",
    "telephone-mulaw-8k": "telephone_uar",
    "whole-file": "whole_file_uar",
}
_FIT_BATCH = 64


class Student(nn.Module):
    """The model, and in training only heads that predict what a teacher hears.

    Parameters
    ----------
    components
        of the teacher's steps and of its statistics; None without a teacher.
    embedded
        inputs are the model's embeddings, and only its head learns.
    """

    def __init__(
        self, model: EmotionModel, components: tuple[int, int] | None, embedded: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.embedded = embedded
        self.regress: nn.Linear | None = None
        self.regress_pooled: nn.Linear | None = None
        if components is not None:
            self.regress = nn.Linear(model.step_size, components[0])
            self.regress_pooled = nn.Linear(model.embedding_size, components[1])

    def forward(self, inputs: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        """Logits, and where there is a teacher its steps and statistics as predicted."""
        if self.embedded:
            return (self.model.head(inputs),)
        x, mask = self.model.steps(inputs, length)
        embedding = self.model.pool(x, mask)
        logits = self.model.head(embedding)
        if self.regress is None or self.regress_pooled is None:
            return (logits,)
        return logits, self.regress(x), self.regress_pooled(embedding)


_Tensors = tuple[Tensor, ...] | list[Tensor]


def average_of(student: Student, decay: float) -> AveragedModel:
    """Exponential average of weights and buffers, short at first so that it forgets the start.

    Weights that do not learn stay as they were copied: of a frozen encoder, averaging them would
    cost more than the rest of a step.
    """
    still = {p.data_ptr() for p in student.parameters() if not p.requires_grad}

    def update(means: _Tensors, values: _Tensors, count: Tensor | int) -> None:
        keep = min(decay, (1 + float(count)) / (10 + float(count)))
        for mean, value in zip(means, values, strict=True):
            if value.data_ptr() in still:
                continue
            mean.copy_(torch.lerp(value, mean, keep) if mean.is_floating_point() else value)

    return AveragedModel(student, multi_avg_fn=update, use_buffers=True)


class Run:
    """A training run in a folder: `last.pt`, `best.pt`, `log.csv`, TensorBoard's events.

    Where nobody validates, the run goes to its last epoch, whose averaged weights are the best.

    Raises
    ------
    TrainerError
        the device or precision is not to be had, or model and front end do not go together.
    """

    def __init__(
        self, recipe: Recipe, data: TrainingData, folder: Path, world: World | None = None
    ) -> None:
        self.recipe, self.data, self.folder = recipe, data, folder
        self.world = world or World()
        settings = recipe.train
        self.device = choose_device(settings, self.world)
        if settings.batch_size < 2 * self.world.size:
            raise TrainerError(
                f"train.batch_size: {settings.batch_size} are too few for {self.world.size} "
                "processes, which need two rows each."
            )
        torch.set_num_threads(settings.threads)
        torch.manual_seed(recipe.seed)
        components = data.targets.components if data.targets is not None else None
        model = build(recipe.model, recipe.frontend, len(recipe.label_map.labels))
        self._heard = self._fit_frontend(model)
        embedded = data.features is not None and isinstance(model, Backbone)
        self.student = Student(model, components, embedded).to(self.device)
        # A third off the time of a step with convolutions in bfloat16 on a CPU.
        # torch's annotation lacks this form of the call.
        self.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.world.size > 1:
            share_batch_norm(self.student)
        self._parallel = parallel(self.student, self.world)
        self.average = average_of(self.student, settings.average_decay)
        optimiser = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
        self.optimiser = optimiser(self._groups(), weight_decay=settings.weight_decay)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.batches = Batches(recipe, data)
        self.progress = Progress()

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.progress.epoch

    @property
    def best_uar(self) -> float:
        """Validation UAR of the best epoch; -1 where there is none."""
        return self.progress.best_uar

    def _groups(self) -> list[dict[str, Any]]:
        """What learns; a group's `scale` is its part of the learning rate."""
        model = self.student.model
        if not isinstance(model, Backbone):
            return [{"params": list(self.student.parameters()), "scale": 1.0}]
        heads = [head for head in (self.student.regress, self.student.regress_pooled) if head]
        own = [{"params": list(head.parameters()), "scale": 1.0} for head in heads]
        return model.parameter_groups() + own

    def _fit_frontend(self, model: EmotionModel) -> list[tuple[Float32, Int64]]:
        """Measure the front end on the training part; what validation looks like to the model."""
        frontend, features, held = model.frontend, self.data.features, self.data.validation
        if isinstance(model, Backbone):
            labels = self.recipe.label_map.labels
            model.fit_experts(features, self.data.utterances, labels)
        if features is not None and isinstance(model, Backbone):
            model.to(self.device)
            return [measure(model, s.audio, s.length) for s in held]
        if features is not None and isinstance(frontend, LogMel | FrameFeatures):
            heard = [measure(frontend, s.audio, s.length) for s in held]
            model.frontend = given = Given(frontend)
            given.fit(features.batches())
            return heard
        frontend.fit(self._audio())
        return [(s.audio, s.length) for s in held]

    def _audio(self) -> Iterator[tuple[Tensor, Tensor]]:
        copies, utterances = self.data.bank.length.shape
        for copy in range(copies):
            for first in range(0, utterances, _FIT_BATCH):
                rows = np.arange(first, min(first + _FIT_BATCH, utterances))
                audio = to_float(self.data.bank.take(np.full(len(rows), copy), rows))
                yield torch.from_numpy(audio), torch.from_numpy(self.data.bank.length[copy, rows])

    def _autocast(self) -> torch.autocast:
        kind = torch.float16 if self.recipe.train.precision == "fp16" else torch.bfloat16
        enabled = self.recipe.train.precision != "fp32"
        return torch.autocast(self.device.type, kind, enabled=enabled)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean loss over a batch, and how many of its rows are recognised."""
        with self._autocast():
            logits, *predicted = self._parallel(batch.inputs, batch.length)
        logits = logits.float()
        rows = functional.cross_entropy(
            logits,
            batch.truth,
            label_smoothing=self.recipe.train.label_smoothing,
            reduction="none",
        )
        loss = (rows * batch.weight).mean()
        right = (logits.argmax(dim=1) == batch.truth.argmax(dim=1)).sum()
        distil, lesson = self.recipe.distil, batch.lesson
        if distil is None or lesson is None:
            return loss, right
        steps, pooled = predicted
        weight = distil.label_weight
        loss = (
            (1 - weight) * loss
            + weight * score_loss(logits, lesson.said, distil.temperature)
            + distil.feature_weight * feature_loss(steps.float(), lesson.steps, batch.samples)
            + distil.statistics_weight * functional.mse_loss(pooled.float(), lesson.pooled)
        )
        return loss, right

    def _step(self, batch: Batch) -> Tensor:
        """One step of the optimiser: summed loss, rows recognised and rows, over all ranks."""
        count = len(batch.length)
        mine = batch.part(self.world.share(count), self.device)
        rows = len(mine.length)
        loss, right = self._loss(mine)
        told = self.world.total(torch.stack([loss.detach() * rows, right, right * 0 + rows]))
        if not torch.isfinite(told[0]):
            best = self.folder / BEST
            kept = f"{best} keeps the best epoch so far." if best.is_file() else ""
            raise TrainerError(
                f"The loss diverged in epoch {self.epoch + 1}: lower train.learning_rate "
                f"in the recipe. {kept}".rstrip()
            )
        self.optimiser.zero_grad()
        # Gradients are averaged over the ranks, and shares may differ by a row.
        scaled = self._scaler.scale(loss * (rows * self.world.size / count))
        # torch leaves this method without types
        scaled.backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.student.parameters(), self.recipe.train.gradient_limit)
        self._scaler.step(self.optimiser)
        self._scaler.update()
        self.average.update_parameters(self.student)
        return told

    def train_epoch(self) -> Line:
        """One epoch; returns its line of the log.

        Raises
        ------
        TrainerError
            the loss is no longer a finite number.
        """
        settings, steps = self.recipe.train, len(self.batches)
        started = time.monotonic()
        torch.manual_seed(self.recipe.seed * 100_003 + self.epoch + 7_919 * self.world.rank)
        self._parallel.train()
        told = torch.zeros(3, device=self.device)
        bar = tqdm(
            self.batches.epoch(self.epoch),
            f"epoch {self.epoch + 1}/{settings.epochs}",
            total=steps,
            leave=False,
            disable=None if self.world.leads else True,
        )
        for i, batch in enumerate(bar):
            rate = learning_rate(settings, self.epoch * steps + i, steps, self.progress.cut)
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group["scale"]
            told += self._step(batch)
        self.progress.epoch += 1
        loss, right, rows = told.tolist()
        line = {"epoch": self.epoch, "loss": loss / rows, "accuracy": right / rows}
        line |= {"learning_rate": rate} | self.world.only_leader(self.validate)
        return line | {"seconds": time.monotonic() - started}

    def _say(self, inputs: Float32, length: Int64) -> Float32:
        """Logits of the averaged weights."""
        student = self.average.module.eval()
        with torch.inference_mode():
            given = (torch.from_numpy(inputs), torch.from_numpy(length))
            logits, *_ = student(*(values.to(self.device) for values in given))
        return np.asarray(logits.float().cpu().numpy(), np.float32)

    def validate(self) -> Line:
        """Loss, accuracy and corpus-mean UAR of the averaged weights; nothing without speakers.

        Loss and accuracy are those of the first condition.
        """
        line: Line = {}
        for name, segments, (inputs, length) in zip(
            self.recipe.train.select, self.data.validation, self._heard, strict=False
        ):
            logits = segment_logits(self._say, replace(segments, audio=inputs, length=length))
            scores = utterance_scores(logits, segments)
            if not line:
                chosen = softmax(logits)[np.arange(len(logits)), segments.truth[segments.owner]]
                line["validation_loss"] = float(-np.log(np.maximum(chosen, 1e-12)).mean())
                right = scores.argmax(axis=1) == segments.truth
                line["validation_accuracy"] = float(right.mean())
            line[_UAR[name]] = corpus_mean_uar(scores, segments)
        return line

    def save(self, name: str) -> None:
        """Write a checkpoint, whole or not at all.

        Raises
        ------
        TrainerError
            the folder cannot be written; checkpoints already there stay as they are.
        """
        state = {
            "recipe": self.recipe.model_dump(mode="json"),
            "epoch": self.epoch,
            "progress": asdict(self.progress),
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        write_checkpoint(self.folder / name, state)

    def resume(self) -> None:
        """Take up `last.pt`.

        Raises
        ------
        TrainerError
            the checkpoint is of another recipe.
        """
        path = self.folder / LAST
        state = read_checkpoint(path)
        check_same_run(path, state, self.recipe)
        try:
            self.student.load_state_dict(state["student"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self._scaler.load_state_dict(state["scaler"])
            self.progress = Progress(**state["progress"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise TrainerError(f"{path} is of another architecture: {error}") from None

    def train(self) -> None:
        """Train to the end, keeping `last.pt`, `best.pt` and the logs.

        Raises
        ------
        TrainerError
            the loss diverges, or the folder cannot be written.
        """
        logs = Logs(self.folder, self.epoch)
        try:
            while not self.progress.is_over(self.recipe.train):
                self._turn(logs)
            if not self.data.validation:
                self.world.only_leader(lambda: self.save(BEST))
        finally:
            logs.close()

    def _turn(self, logs: Logs) -> None:
        """An epoch, and what is kept of it."""
        line = self.train_epoch()
        values = [line[_UAR[name]] for name in self.recipe.train.select if _UAR[name] in line]
        best = self.progress.judge(float(np.mean(values)) if values else None, self.recipe.train)

        def keep() -> None:
            if best and values:
                self.save(BEST)
            logs.add(line)
            # Last, so that a run killed before repeats the epoch and what it wrote.
            self.save(LAST)
            told = [
                f"{k.replace('_', ' ').replace('uar', 'UAR')} {line[k]:.3f}"
                for k in line
                if k not in ("epoch", "learning_rate", "seconds")
            ]
            star = " *" if best and values else ""
            tqdm.write(f"epoch {self.epoch}: {', '.join(told)}, {line['seconds']:.1f} s{star}")

        self.world.only_leader(keep)
