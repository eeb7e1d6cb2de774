"""Features of a bank's segments, computed once where they are the same in every epoch.

A front end costs several milliseconds a segment, a pretrained encoder a hundred, and a small
network after them a fraction of that. What is stored is not yet standardised: that differs from
fold to fold and is cheap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from trainer.audio import WINDOW_SAMPLES, Float32, to_float
from trainer.backbones.frozen import embed, identity
from trainer.bank import Bank, create_array
from trainer.distil import STEP_SAMPLES
from trainer.distributed import World, choose_device
from trainer.errors import TrainerError
from trainer.features import (
    FrameFeatures,
    FrameSettings,
    Frontend,
    LogMel,
    build_frontend,
    time_mask,
)
from trainer.metrics import Int64
from trainer.models import is_classical
from trainer.models.backbone import Backbone, BackboneSettings
from trainer.recipe import Recipe

_BATCH = 64
# Beyond this the disk costs more than the time that it saves.
_MOST_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class FeatureBank:
    """Features of the segments of a bank, or of some of its utterances.

    Attributes
    ----------
    values
        float32 or float16 [copies, stored utterances, dims, frames], before standardisation; or
        embeddings of a frozen encoder, float32 [copies, stored utterances, size].
    frames
        int64 [copies, stored utterances], those that are valid; 1 of an embedding.
    rows
        int64 [utterances], the place of each among those stored.
    hop_length
        samples from one frame to the next.
    """

    values: npt.NDArray[np.floating]
    frames: Int64
    rows: Int64
    hop_length: int

    def take(self, copies: Int64, utterances: Int64, cut: Int64) -> tuple[Float32, Int64]:
        """Features of some segments, each without its first `cut` samples.

        Parameters
        ----------
        cut
            int64 [segments], whole frames, and none for summaries and embeddings.

        Returns
        -------
        float32 [segments, dims, frames] and the frames of each, where the frames are those of
        the longest and up to the end of a teacher's step; or embeddings.
        """
        rows = self.rows[utterances]
        if self.values.ndim == 3:
            return np.asarray(self.values[copies, rows], np.float32), self.frames[copies, rows]
        first = cut // self.hop_length
        frames = np.maximum(self.frames[copies, rows] - first, 1)
        longest = int(frames.max())
        if STEP_SAMPLES % self.hop_length == 0 and self.values.shape[3] > 1:
            step = STEP_SAMPLES // self.hop_length
            longest = -(-longest // step) * step
        taken = np.zeros((len(rows), self.values.shape[2], longest), np.float32)
        for place, (copy, row, start) in enumerate(zip(copies, rows, first, strict=True)):
            part = self.values[copy, row, :, start : start + longest]
            taken[place, :, : part.shape[1]] = part
        return taken, frames

    def steps(self, frames: int) -> int:
        """Steps of a teacher's in so many frames."""
        return frames * self.hop_length // STEP_SAMPLES

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All segments, as (features, frames)."""
        for copy in range(self.values.shape[0]):
            for first in range(0, len(self.rows), _BATCH):
                utterances = np.arange(first, min(first + _BATCH, len(self.rows)))
                count = len(utterances)
                values, frames = self.take(
                    np.full(count, copy), utterances, np.zeros(count, np.int64)
                )
                yield torch.from_numpy(values), torch.from_numpy(frames)


class Given(Frontend):
    """Stands in a model for its front end where the features are given in place of audio.

    It holds the standardisation of the front end under the same name, so a model's state is the
    same with either.
    """

    def __init__(self, frontend: LogMel | FrameFeatures) -> None:
        super().__init__()
        self.dims, self.is_summary = frontend.dims, frontend.is_summary
        self.n_fft, self.hop_length = frontend.n_fft, frontend.hop_length
        self.standardise = getattr(frontend, "standardise", None)
        # In a list, as its constants are no part of the model's state.
        self._levels = [frontend] if isinstance(frontend, LogMel) else []

    def forward(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Features [batch, dims, frames] as `FeatureBank` has them, int64 [batch]."""
        for frontend in self._levels:
            with torch.autocast(features.device.type, enabled=False):
                return frontend.normalise(features, frames)
        if self.standardise is not None:
            mask = time_mask(frames, features.shape[2])[:, None, :]
            features = self.standardise(features.transpose(1, 2)).transpose(1, 2) * mask
        return features, frames

    def fit(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:  # type: ignore[override]
        """Standardise on (features, frames) of the training part."""
        if self.standardise is not None:
            self.standardise.fit(
                values.transpose(1, 2)[time_mask(frames, values.shape[2]) > 0]
                for values, frames in batches
            )


def is_fixed(recipe: Recipe) -> bool:
    """Whether a segment's features are the same each time that it is drawn, but for a cut."""
    if recipe.train.mixup or is_classical(recipe.model):
        return False
    if isinstance(recipe.model, BackboneSettings):
        alone = recipe.shift_samples == 0 and recipe.distil is None
        return alone and recipe.model.is_embedding_fixed
    frontend = recipe.frontend
    summary = isinstance(frontend, FrameSettings) and bool(frontend.summary)
    # Cuts are whole steps of a teacher's features.
    whole_frames = STEP_SAMPLES % frontend.hop_length == 0 and not summary
    return recipe.shift_samples == 0 or whole_frames


def measure(module: Frontend | Backbone, audio: Float32, length: Int64) -> tuple[Float32, Int64]:
    """Features of segments as `FeatureBank` holds them, and their frames.

    Parameters
    ----------
    module
        a front end that is not fitted yet, or a frozen encoder.
    audio
        float32 [segments, 48000].
    length
        int64 [segments].
    """
    if isinstance(module, Backbone):
        return embed(module, audio, length), np.ones(len(length), np.int64)
    hear = module.levels if isinstance(module, LogMel) else module
    values, frames = [], []
    for first in range(0, len(length), _BATCH):
        part = slice(first, first + _BATCH)
        with torch.inference_mode():
            found = hear(torch.from_numpy(audio[part]), torch.from_numpy(length[part]))
        values.append(found[0].numpy())
        frames.append(found[1].numpy())
    return np.concatenate(values), np.concatenate(frames)


def measure_bank(
    bank: Bank, recipe: Recipe, cache: Path, progress: bool = False
) -> FeatureBank | None:
    """Features of every segment of a whole bank, kept in `cache`; None if they are too many.

    Raises
    ------
    TrainerError
        the cache cannot be written.
    """
    module = _module(recipe)
    copies, utterances = bank.length.shape
    silence = np.zeros((1, WINDOW_SAMPLES), np.float32)
    one, _ = measure(module, silence, np.full(1, WINDOW_SAMPLES))
    shape = (copies, utterances, *one.shape[1:])
    # Logarithms lose nothing in half precision; other features are of every size.
    kind = np.dtype(np.float16 if isinstance(module, LogMel) else np.float32)
    if int(np.prod(shape)) * kind.itemsize > _MOST_BYTES:
        return None
    own = identity(module) if isinstance(module, Backbone) else recipe.frontend.model_dump_json()
    key = hashlib.sha256(f"features 3 {bank.key} {own}".encode()).hexdigest()[:16]
    path, frames_path = cache / f"features-{key}.npy", cache / f"features-{key}.frames.npy"
    if not frames_path.is_file():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            values = create_array(path, kind, shape)
            frames = np.zeros(bank.length.shape, np.int64)
            parts = [
                (copy, slice(first, first + _BATCH))
                for copy in range(copies)
                for first in range(0, utterances, _BATCH)
            ]
            for copy, part in tqdm(parts, "measuring features", disable=None if progress else True):
                audio = to_float(np.asarray(bank.audio[copy, part]))
                values[copy, part], frames[copy, part] = measure(
                    module, audio, bank.length[copy, part]
                )
            values.flush()
            # These come last: their presence says that the values are whole.
            np.save(frames_path, frames)
        except OSError as error:
            for left in (path, frames_path):
                left.unlink(missing_ok=True)
            raise TrainerError(f"{path} cannot be written: {error.strerror}.") from None
    hop = recipe.frontend.hop_length
    stored = np.load(path, mmap_mode="r")
    return FeatureBank(stored, np.load(frames_path), np.arange(utterances), hop)


def _module(recipe: Recipe) -> Frontend | Backbone:
    if not isinstance(recipe.model, BackboneSettings):
        return build_frontend(recipe.frontend)
    # What the head looks like does not matter here.
    model = Backbone(recipe.model, recipe.frontend, 2)
    return model.eval().to(choose_device(recipe.train, World()))
