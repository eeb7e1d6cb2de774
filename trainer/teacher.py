"""A teacher for the small network: a pretrained speech encoder with a head of ours.

The encoder hears each training segment before it is degraded; the student hears it after, so
it learns to say the same through noise and telephone. Head and projection are fitted on the
training speakers alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from trainer.audio import WINDOW_SAMPLES, Clips, Float32, save_atomically
from trainer.augment import Augmenter
from trainer.bank import Bank, original
from trainer.corpora.base import LABELS, Utterance
from trainer.distil import STEP_SAMPLES, Targets
from trainer.metrics import Int64
from trainer.recipe import DistilSettings
from trainer.train import sampling_weights
from trainer.whisper import WhisperEncoder, statistics, weights_path

_BATCH = 32
_STEPS = WINDOW_SAMPLES // STEP_SAMPLES
# Segments from which the projection of the features is learnt.
_SAMPLE = 512


@dataclass(frozen=True, slots=True)
class Heard:
    """What the encoder makes of segments.

    Attributes
    ----------
    statistics
        float32 [segments, layers * 2 * 384], mean and deviation over time.
    steps
        float32 [segments, 30, 384], mean over the layers and over each step of 100 ms; zero
        beyond the length.
    """

    statistics: Float32
    steps: Float32


def encode(
    encoder: WhisperEncoder, audio: Float32, length: Int64, layers: tuple[int, ...]
) -> Heard:
    """Hear segments: audio float32 [segments, 48000], length int64 [segments]."""
    found = np.zeros((len(length), len(layers) * 768), np.float32)
    steps = np.zeros((len(length), _STEPS, 384), np.float32)
    order = np.argsort(length)
    # Like lengths together: attention over padding is paid for.
    for rows in np.split(order, range(_BATCH, len(order), _BATCH)):
        longest = -(-int(length[rows].max()) // STEP_SAMPLES) * STEP_SAMPLES
        cut = torch.from_numpy(audio[rows, :longest])
        with torch.autocast("cpu", torch.bfloat16):
            outputs, mask = encoder.outputs(cut, torch.from_numpy(length[rows]), layers)
        found[rows] = statistics(outputs, mask).numpy()
        frames = outputs.mean(dim=1) * mask[:, :, None]
        pooled = frames.view(len(rows), longest // STEP_SAMPLES, -1, 384).mean(dim=2)
        steps[rows, : pooled.shape[1]] = pooled.numpy()
    return Heard(found, steps)


@dataclass(frozen=True, slots=True)
class _Job:
    encoder: WhisperEncoder
    clips: Clips
    augmenter: Augmenter
    seed: int
    layers: tuple[int, ...]

    def hear(self, copy: int, indices: Sequence[int]) -> tuple[Heard, Int64]:
        audio = np.zeros((len(indices), WINDOW_SAMPLES), np.float32)
        length = np.zeros(len(indices), np.int64)
        for row, index in enumerate(indices):
            samples, _ = original(self.augmenter, self.clips, self.seed, copy, index)
            audio[row, : len(samples)] = samples
            length[row] = len(samples)
        return encode(self.encoder, audio, length, self.layers), length


@dataclass(frozen=True, slots=True)
class Projection:
    """Principal components of the steps, each scaled to deviation 1.

    Attributes
    ----------
    mean
        float32 [384].
    matrix
        float32 [384, components].
    """

    mean: Float32
    matrix: Float32

    @staticmethod
    def learn(steps: Float32, components: int) -> Projection:
        """From valid steps, float32 [steps, 384]."""
        mean = steps.mean(axis=0)
        _, scale, directions = np.linalg.svd(steps - mean, full_matrices=False)
        deviation = scale[:components] / np.sqrt(len(steps))
        return Projection(mean, (directions[:components] / deviation[:, None]).T)

    def __call__(self, steps: Float32) -> npt.NDArray[np.float16]:
        """Steps [..., 384] to components, float16 [..., components]."""
        return ((steps - self.mean) @ self.matrix).astype(np.float16)


_worker: tuple[_Job, Projection] | None = None


def _start_worker(job: _Job, projection: Projection) -> None:
    # A worker process has one job for life, and the data are too large to send with each task.
    global _worker  # noqa: PLW0603
    torch.set_num_threads(1)
    _worker = (job, projection)


def _hear_chunk(
    task: tuple[int, int, int],
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    assert _worker is not None
    job, projection = _worker
    copy, first, last = task
    heard, _ = job.hear(copy, range(first, last))
    return heard.statistics.astype(np.float16), projection(heard.steps)


def hear_bank(
    job: _Job, bank: Bank, components: int, cache: Path, processes: int
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """The encoder's view of every segment of the bank, undegraded, kept in `cache`.

    Returns
    -------
    Statistics float16 [copies, utterances, layers * 2 * 384], and projected steps
    float16 [copies, utterances, 30, components].

    Raises
    ------
    TrainerError
        The cache cannot be written.
    """
    digest = hashlib.sha256(repr((bank.key, job.layers, components, 2)).encode()).hexdigest()
    path = cache / f"teacher-{digest[:16]}.npz"
    if not path.is_file():
        copies, utterances = bank.length.shape
        chosen = np.random.default_rng(job.seed).permutation(utterances)[:_SAMPLE]
        sample, length = job.hear(0, chosen.tolist())
        valid = np.arange(_STEPS)[None, :] < (length // STEP_SAMPLES)[:, None]
        projection = Projection.learn(sample.steps[valid], components)
        tasks = [
            (copy, first, min(first + 256, utterances))
            for copy in range(copies)
            for first in range(0, utterances, 256)
        ]
        start = (job, projection)
        with ProcessPoolExecutor(processes, get_context("fork"), _start_worker, start) as pool:
            progress = tqdm(pool.map(_hear_chunk, tasks), "teacher", len(tasks), disable=None)
            chunks = list(progress)
        found = np.concatenate([chunk[0] for chunk in chunks])
        steps = np.concatenate([chunk[1] for chunk in chunks])
        save_atomically(
            path,
            statistics=found.reshape(copies, utterances, -1),
            steps=steps.reshape(copies, utterances, _STEPS, -1),
        )
    with np.load(path) as arrays:
        return arrays["statistics"], arrays["steps"]


class Head(nn.Module):
    """Standardisation and one hidden layer over the encoder's statistics."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Tensor, labels: int, hidden: int = 256) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(dim=0))
        self.register_buffer("deviation", features.std(dim=0) + 1e-3)
        self.layers = nn.Sequential(
            nn.Dropout(0.3),
            nn.Linear(features.shape[1], hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, labels),
        )

    def standardise(self, features: Tensor) -> Tensor:
        """Features to mean 0 and deviation 1 over the training segments."""
        return (features - self.mean) / self.deviation

    def forward(self, features: Tensor) -> Tensor:
        """Logits [rows, labels] of statistics [rows, features]."""
        logits: Tensor = self.layers(self.standardise(features))
        return logits


def fit_head(
    features: Tensor, labels: Tensor, weights: Tensor, seed: int, settings: DistilSettings
) -> Head:
    """Fit a head on the training segments.

    Parameters
    ----------
    features
        float32 [segments, features].
    labels
        int64 [segments].
    weights
        float64 [segments], probability of drawing each.
    """
    torch.manual_seed(seed)
    head = Head(features, len(LABELS))
    optimiser = torch.optim.AdamW(head.parameters(), 1e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, settings.head_steps)
    for _ in range(settings.head_steps):
        rows = torch.multinomial(weights, 256, replacement=True)
        loss = functional.cross_entropy(head(features[rows]), labels[rows], label_smoothing=0.1)
        optimiser.zero_grad()
        # torch leaves this method without types
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return head.eval()


def assign_folds(utterances: Sequence[Utterance], folds: int, seed: int) -> Int64:
    """A fold for each utterance: by speaker, or by utterance where a corpus has but one."""
    rng = np.random.default_rng(seed)
    assigned = np.zeros(len(utterances), np.int64)
    for corpus in sorted({u.corpus for u in utterances}):
        rows = [i for i, u in enumerate(utterances) if u.corpus == corpus]
        speakers = sorted({utterances[i].speaker for i in rows})
        order = rng.permutation(len(speakers))
        fold = dict(zip(speakers, order.tolist(), strict=True))
        for i in rows:
            alone = len(speakers) == 1
            number = int(rng.integers(folds)) if alone else fold[utterances[i].speaker]
            assigned[i] = number % folds
    return assigned


def soft_labels(
    features: Tensor,
    utterances: Sequence[Utterance],
    copies: int,
    balance: float,
    settings: DistilSettings,
    seed: int,
) -> Float32:
    """Logits of every segment from a head that was not fitted on its speaker.

    A head's scores of its own training speakers are nearly the labels again; those of others
    say which emotions a recording lies between. With one fold the head scores its own.

    Parameters
    ----------
    features
        float32 [copies * utterances, features], copy by copy.

    Returns
    -------
    float32 [copies * utterances, labels].
    """
    labels = torch.tensor([LABELS.index(u.label) for u in utterances]).repeat(copies)
    weights = torch.from_numpy(sampling_weights(utterances, balance)).repeat(copies)
    fold = torch.from_numpy(assign_folds(utterances, settings.folds, seed)).repeat(copies)
    logits = torch.zeros(len(features), len(LABELS))
    for number in range(settings.folds):
        own = fold == number
        fitting = ~own if settings.folds > 1 else own
        head = fit_head(features[fitting], labels[fitting], weights[fitting], seed, settings)
        with torch.inference_mode():
            logits[own] = head(features[own])
    return np.asarray(logits.numpy(), np.float32)


def teach(
    clips: Clips,
    augmenter: Augmenter,
    bank: Bank,
    settings: DistilSettings,
    balance: float,
    seed: int,
    cache: Path,
    processes: int,
) -> Targets:
    """Targets for every segment of the bank.

    Raises
    ------
    TrainerError
        The encoder's package is missing or not what it should be.
    """
    encoder = WhisperEncoder.load(weights_path(), max(settings.layers))
    job = _Job(encoder, clips, augmenter, seed, settings.layers)
    heard, steps = hear_bank(job, bank, settings.components, cache, processes)
    copies, utterances, width = heard.shape
    features = torch.from_numpy(heard.reshape(-1, width)).float()
    logits = soft_labels(features, clips.utterances, copies, balance, settings, seed)
    return Targets(logits=logits.reshape(copies, utterances, -1), features=steps)
