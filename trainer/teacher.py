"""A teacher for the small network: a pretrained speech encoder with a head of ours.

The encoder hears each training segment before it is degraded; the student hears it after, so
it learns to say the same through noise and telephone. What the encoder says of a segment depends
on that segment alone and is shared by all folds; heads and projections are fitted for each fold,
on its training speakers only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from trainer.audio import WINDOW_SAMPLES, Clips, Float32
from trainer.augment import Augmenter
from trainer.bank import Bank, create_array, original
from trainer.batches import sampling_weights
from trainer.corpora.base import Utterance
from trainer.distil import STEP_SAMPLES, Float16, Heard, Projection, Targets
from trainer.errors import TrainerError
from trainer.metrics import Int64
from trainer.recipe import DistilSettings
from trainer.saving import write_checkpoint
from trainer.whisper import WIDTH, WhisperEncoder, statistics, weights_path

_BATCH = 32
_CHUNK = 64
_STEPS = WINDOW_SAMPLES // STEP_SAMPLES
# Rows from which a projection is learnt: a hundred for each component are plenty.
_SAMPLE = 20_000


def encode(
    encoder: WhisperEncoder,
    audio: Float32,
    length: Int64,
    layers: tuple[int, ...],
    step_layers: tuple[int, ...],
) -> tuple[Float32, Float32]:
    """Hear segments.

    Parameters
    ----------
    audio
        float32 [segments, 48000].
    length
        int64 [segments], samples.
    layers, step_layers
        counted from 1, the latter among the former.

    Returns
    -------
    Statistics of `layers`, float32 [segments, layers * 2 * 384], and the mean of `step_layers`
    over each step of 100 ms, float32 [segments, 30, 384].
    """
    found = np.zeros((len(length), len(layers) * 2 * WIDTH), np.float32)
    steps = np.zeros((len(length), _STEPS, WIDTH), np.float32)
    averaged = [layers.index(layer) for layer in step_layers]
    order = np.argsort(length)
    # Like lengths together: attention over padding is paid for.
    for rows in np.split(order, range(_BATCH, len(order), _BATCH)):
        longest = -(-int(length[rows].max()) // STEP_SAMPLES) * STEP_SAMPLES
        cut = torch.from_numpy(audio[rows, :longest])
        with torch.autocast("cpu", torch.bfloat16):
            outputs, mask = encoder.outputs(cut, torch.from_numpy(length[rows]), layers)
        found[rows] = statistics(outputs, mask).numpy()
        frames = outputs[:, averaged].mean(dim=1) * mask[:, :, None]
        pooled = frames.view(len(rows), longest // STEP_SAMPLES, -1, WIDTH).mean(dim=2)
        steps[rows, : pooled.shape[1]] = pooled.numpy()
    return found, steps


@dataclass(frozen=True, slots=True)
class _Job:
    encoder: WhisperEncoder
    clips: Clips
    augmenter: Augmenter
    seed: int
    settings: DistilSettings

    def hear(self, copy: int, first: int, last: int) -> tuple[Float32, Float32]:
        audio = np.zeros((last - first, WINDOW_SAMPLES), np.float32)
        length = np.zeros(last - first, np.int64)
        for row, index in enumerate(range(first, last)):
            samples, _ = original(self.augmenter, self.clips, self.seed, copy, index)
            audio[row, : len(samples)] = samples
            length[row] = len(samples)
        settings = self.settings
        return encode(self.encoder, audio, length, settings.layers, settings.step_layers)


_worker: _Job | None = None


def _start_worker(job: _Job) -> None:
    # A worker process has one job for life, and the data are too large to send with each task.
    global _worker  # noqa: PLW0603
    torch.set_num_threads(1)
    _worker = job


def _hear_chunk(task: tuple[int, int, int]) -> tuple[tuple[int, int, int], Float16, Float16]:
    assert _worker is not None
    found, steps = _worker.hear(*task)
    return task, found.astype(np.float16), steps.astype(np.float16)


def hear_bank(
    bank: Bank,
    clips: Clips,
    augmenter: Augmenter,
    settings: DistilSettings,
    seed: int,
    cache: Path,
    processes: int = 1,
) -> Heard:
    """The encoder's view of every segment of a whole bank, undegraded, kept in `cache`.

    Raises
    ------
    TrainerError
        the encoder's package is missing or not what it should be, or the cache cannot be written.
    """
    identity = repr((bank.key, settings.encoder, settings.layers, settings.step_layers, 3))
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path, last = cache / f"heard-{key}.npy", cache / f"heard-{key}.steps.npy"
    copies, utterances = bank.length.shape
    if not last.is_file():
        encoder = WhisperEncoder.load(weights_path(), max(settings.layers))
        job = _Job(encoder, clips, augmenter, seed, settings)
        part = last.with_suffix(".part.npy")
        width = len(settings.layers) * 2 * WIDTH
        tasks = [
            (copy, first, min(first + _CHUNK, utterances))
            for copy in range(copies)
            for first in range(0, utterances, _CHUNK)
        ]
        try:
            cache.mkdir(parents=True, exist_ok=True)
            found = create_array(path, np.float16, (copies, utterances, width))
            steps = create_array(part, np.float16, (copies, utterances, _STEPS, WIDTH))
            with ProcessPoolExecutor(processes, get_context("fork"), _start_worker, (job,)) as pool:
                heard = pool.map(_hear_chunk, tasks)
                for (copy, start, end), statistic, step in tqdm(
                    heard, "hearing", len(tasks), disable=None
                ):
                    found[copy, start:end], steps[copy, start:end] = statistic, step
            found.flush()
            steps.flush()
            # Its name says that both are whole.
            part.replace(last)
        except OSError as error:
            for left in (path, part):
                left.unlink(missing_ok=True)
            raise TrainerError(f"{path} cannot be written: {error.strerror}.") from None
    rows = np.arange(utterances)
    return Heard(np.load(path, mmap_mode="r"), np.load(last, mmap_mode="r"), rows)


class Head(nn.Module):
    """Standardisation and one hidden layer over the encoder's statistics."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, labels: int, hidden: int = 256) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.layers = nn.Sequential(
            nn.Dropout(0.3),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, labels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Logits float32 [rows, labels] of statistics [rows, width]."""
        logits: Tensor = self.layers((features - self.mean) / self.deviation)
        return logits


def fit_head(
    heard: Heard,
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    balance: float,
    settings: DistilSettings,
    seed: int,
) -> Head:
    """Fit a head on every copy of some utterances, those of `heard.rows`.

    The first copy, which nothing was done to, is drawn more often than the others.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    copies, _, width = heard.statistics.shape
    head = Head(width, len(labels))
    first = heard.statistics[0, heard.rows].astype(np.float32)
    head.mean += torch.from_numpy(first.mean(axis=0))
    head.deviation *= torch.from_numpy(first.std(axis=0) + 1e-3)
    truth = torch.tensor([labels.index(u.label) for u in utterances])
    chance = sampling_weights(utterances, balance)
    optimiser = torch.optim.AdamW(head.parameters(), 1e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, settings.head_steps)
    for _ in range(settings.head_steps):
        drawn = rng.choice(len(utterances), 256, p=chance)
        copy = rng.integers(copies, size=256)
        copy[:96] = 0
        features = heard.statistics[copy, heard.rows[drawn]].astype(np.float32)
        logits = head(torch.from_numpy(features))
        loss = functional.cross_entropy(logits, truth[drawn], label_smoothing=0.1)
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


class Teacher:
    """An encoder's view of a bank, from which every fold takes its lessons.

    Parameters
    ----------
    heard
        of the whole bank.
    key
        the bank's, for what is kept in `cache`.
    """

    def __init__(
        self,
        heard: Heard,
        key: str,
        settings: DistilSettings,
        labels: Sequence[str],
        balance: float,
        seed: int,
        cache: Path,
    ) -> None:
        self._heard, self._settings, self._labels = heard, settings, tuple(labels)
        self._balance, self._seed, self._cache = balance, seed, cache
        self._identity = repr((key, settings, self._labels, balance, seed, 1))

    def targets(self, utterances: Sequence[Utterance], rows: Int64, groups: Int64) -> Targets:
        """What the teacher says of some of the bank's utterances.

        Parameters
        ----------
        rows
            int64 [utterances], their places in the bank.
        groups
            int64 [utterances]. Each group is scored by a head that was fitted on the others:
            heads know their own speakers' labels by heart and have nothing to add to them.
            Where there is but one group, speakers are divided anew.
        """
        if len(np.unique(groups)) < 2:
            groups = assign_folds(utterances, self._settings.folds, self._seed)
        heard = self._heard.subset(rows)
        copies = heard.statistics.shape[0]
        logits = np.zeros((copies, len(utterances), len(self._labels)), np.float32)
        for group in tqdm(np.unique(groups).tolist(), "heads", disable=None, leave=False):
            own = groups == group
            fitting = ~own if not own.all() else own
            head = self._head(
                [utterances[i] for i in np.flatnonzero(fitting).tolist()], rows[fitting]
            )
            with torch.inference_mode():
                for copy in range(copies):
                    features = heard.statistics[copy, rows[own]].astype(np.float32)
                    logits[copy, own] = head(torch.from_numpy(features)).numpy()
        return Targets(logits, heard, self._of_steps(heard), self._of_statistics(heard))

    def _head(self, utterances: Sequence[Utterance], rows: Int64) -> Head:
        """Heads are kept: two folds share the one that was fitted without either's speakers."""
        digest = hashlib.sha256(self._identity.encode() + rows.tobytes()).hexdigest()[:16]
        path = self._cache / f"head-{digest}.pt"
        head = Head(self._heard.statistics.shape[2], len(self._labels))
        if path.is_file():
            head.load_state_dict(torch.load(path, weights_only=True))
            return head.eval()
        head = fit_head(
            self._heard.subset(rows),
            utterances,
            self._labels,
            self._balance,
            self._settings,
            self._seed,
        )
        write_checkpoint(path, head.state_dict())
        return head

    def _of_steps(self, heard: Heard) -> Projection:
        valid = heard.steps[0, heard.rows].reshape(-1, heard.steps.shape[3])
        valid = valid[np.any(valid != 0, axis=1)]
        return Projection.learn(self._some(valid), self._settings.components)

    def _of_statistics(self, heard: Heard) -> Projection:
        first = heard.statistics[: min(3, heard.statistics.shape[0])][:, heard.rows]
        values = self._some(first.reshape(-1, first.shape[2]))
        return Projection.learn(values, min(self._settings.components, values.shape[1]))

    @staticmethod
    def _some(values: Float16) -> Float32:
        step = max(1, len(values) // _SAMPLE)
        return values[::step].astype(np.float32)
