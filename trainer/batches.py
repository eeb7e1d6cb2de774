"""Batches of training segments, drawn by seed and epoch alone.

The draws of an epoch are the same on every rank of a distributed run and in a run that is
resumed; a rank then computes its share of each batch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.audio import Float32, Int16
from trainer.augment.mixup import mixup
from trainer.bank import Bank
from trainer.corpora.base import Utterance
from trainer.distil import STEP_SAMPLES, Lesson, Targets
from trainer.evaluate import Segments
from trainer.feature_bank import FeatureBank
from trainer.metrics import Float64, Int64
from trainer.recipe import Recipe


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
        segments under each condition of `train.select`, in its order; empty where no speaker
        is left for validation.
    targets
        a teacher's, where the recipe distils.
    features
        the front end's features of the bank's segments, where they never change.
    """

    bank: Bank
    utterances: tuple[Utterance, ...]
    validation: tuple[Segments, ...]
    targets: Targets | None = None
    features: FeatureBank | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What the network is given, and what it should say.

    Attributes
    ----------
    inputs
        audio float32 [batch, 48000], or features [batch, dims, frames].
    length
        int64 [batch], samples or frames.
    truth
        float32 [batch, labels], probabilities.
    weight
        float32 [batch], mean 1 over an epoch.
    samples
        int64 [batch], what `length` is in audio.
    lesson
        the teacher's, where there is one.
    """

    inputs: Tensor
    length: Tensor
    truth: Tensor
    weight: Tensor
    samples: Tensor
    lesson: Lesson | None = None

    def part(self, rows: slice, device: torch.device) -> Batch:
        """Some of the rows, on a device."""

        def cut(values: Tensor) -> Tensor:
            return values[rows].to(device, non_blocking=True)

        return Batch(
            cut(self.inputs),
            cut(self.length),
            cut(self.truth),
            cut(self.weight),
            cut(self.samples),
            None if self.lesson is None else self.lesson.part(rows, device),
        )


def sampling_weights(utterances: Sequence[Utterance], balance: float) -> Float64:
    """Probability of drawing each utterance: float64 [utterances], sum 1.

    Cells are (corpus, label). With `balance` 0 every utterance is as likely, with 1 every cell.
    """
    count = Counter((u.corpus, u.label) for u in utterances)
    weight = np.asarray([count[u.corpus, u.label] ** -balance for u in utterances])
    return np.asarray(weight / weight.sum(), np.float64)


def draw_cuts(length: Int64, most: int, rng: np.random.Generator) -> Int64:
    """Samples to cut off the start of segments, up to `most` and at most a fifth: int64 [batch].

    The cut is in whole steps of a teacher's features.
    """
    limit = np.minimum(most, length // 5) // STEP_SAMPLES
    steps = (rng.random(len(length)) * (limit + 1)).astype(np.int64)
    return np.asarray(steps * STEP_SAMPLES, np.int64)


def shift_left(audio: Int16, cut: Int64) -> Float32:
    """Segments without their first `cut` samples: float32 [batch, samples] in [-1, 1)."""
    shifted = np.zeros(audio.shape, np.float32)
    for row, first in enumerate(cut):
        shifted[row, : audio.shape[1] - first] = audio[row, first:]
    return shifted / np.float32(32768)


# Batches whose rows are drawn at once.
_TOGETHER = 4


class Batches:
    """The batches of every epoch."""

    def __init__(self, recipe: Recipe, data: TrainingData) -> None:
        self._recipe, self._data = recipe, data
        labels = recipe.label_map.labels
        indices = [labels.index(u.label) for u in data.utterances]
        self._truth = functional.one_hot(torch.tensor(indices), len(labels)).float()
        self._chance = sampling_weights(data.utterances, recipe.train.balance)
        self._copies = int(data.bank.length.shape[0])

    def __len__(self) -> int:
        """Batches of an epoch."""
        if self._recipe.train.steps:
            return self._recipe.train.steps
        return math.ceil(self._copies * len(self._chance) / self._recipe.train.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of the epoch counted from 0."""
        settings = self._recipe.train
        rng = np.random.default_rng([self._recipe.seed, number])
        count = len(self._chance)
        if settings.steps:
            drawn = rng.choice(count, size=(settings.steps, settings.batch_size), p=self._chance)
            for first in range(0, settings.steps, _TOGETHER):
                yield from self._of_like_length(drawn[first : first + _TOGETHER], rng)
            return
        # Batches of the same size but for one: a batch norm cannot do with a lone last row.
        for part in np.array_split(rng.permutation(self._copies * count), len(self)):
            yield self._batch(part // count, part % count, rng)

    def _of_like_length(self, drawn: Int64, rng: np.random.Generator) -> Iterator[Batch]:
        """The rows of several batches, short ones together: padding is paid for."""
        rows = drawn.reshape(-1)
        copies = rng.integers(self._copies, size=len(rows))
        order = np.argsort(self._data.bank.length[copies, rows], kind="stable")
        for part in rng.permutation(order.reshape(drawn.shape)):
            yield self._batch(copies[part], rows[part], rng)

    def _batch(self, copies: Int64, rows: Int64, rng: np.random.Generator) -> Batch:
        bank, targets = self._data.bank, self._data.targets
        truth = self._truth[rows]
        if self._recipe.train.steps:
            weight = torch.ones(len(rows))
        else:
            weight = torch.from_numpy(self._chance[rows] * len(self._chance)).float()
        whole = bank.length[copies, rows]
        cut = draw_cuts(whole, self._recipe.shift_samples, rng)
        samples = torch.from_numpy(whole - cut)
        lesson = None if targets is None else targets.take(copies, rows, cut)
        features = self._data.features
        if features is not None:
            values, frames = features.take(copies, rows, cut)
            inputs, length = torch.from_numpy(values), torch.from_numpy(frames)
            if lesson is not None:
                lesson = lesson.first(features.steps(values.shape[2]))
        else:
            inputs, length = torch.from_numpy(shift_left(bank.take(copies, rows), cut)), samples
        if self._recipe.train.mixup:
            # Of waveforms, because it is sounds that add up in a room: whatever front end and
            # model come after, they are given what two voices at once sound like.
            inputs, length, truth = mixup(inputs, length, truth, self._recipe.train.mixup, rng)
        return Batch(inputs, length, truth, weight, samples, lesson)
