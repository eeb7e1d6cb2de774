"""The training set as the network sees it: copies of each utterance, degraded once, on disk.

Degrading costs more than a training step of a small network, so it is done once for a fixed
number of copies. SpecAugment and time shifts, which are cheap, vary anew in every epoch.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from trainer.audio import WINDOW_SAMPLES, Clips, Float32, Int16, to_int16
from trainer.augment import Augmenter, AugmentSettings, NoiseLibrary
from trainer.errors import TrainerError

_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Bank:
    """Segments ready to train on.

    Attributes
    ----------
    audio
        int16 [copies, utterances, 48000], zero beyond the length.
    length
        int64 [copies, utterances], valid samples.
    key
        digest of everything that the content depends on.
    """

    audio: Int16
    length: npt.NDArray[np.int64]
    key: str


def _key(clips: Clips, settings: AugmentSettings, library: NoiseLibrary, seed: int) -> str:
    digest = hashlib.sha256(b"bank 2")
    digest.update(json.dumps([settings.model_dump(mode="json"), seed]).encode())
    digest.update(clips.samples.tobytes())
    digest.update(clips.offsets.tobytes())
    for sound in (*library.noises, *library.music, *library.rooms):
        digest.update(sound.tobytes())
    return digest.hexdigest()[:16]


_worker: tuple[Augmenter, Clips, int] | None = None


def _start_worker(augmenter: Augmenter, clips: Clips, seed: int) -> None:
    # A worker process has one job for life, and the data are too large to send with each task.
    global _worker  # noqa: PLW0603
    _worker = (augmenter, clips, seed)


def original(
    augmenter: Augmenter, clips: Clips, seed: int, copy: int, index: int
) -> tuple[Float32, np.random.Generator]:
    """The segment that a copy starts from, and the generator that goes on to degrade it.

    One generator a segment: the result does not depend on the order of work.
    """
    rng = np.random.default_rng([seed, copy, index])
    return augmenter.segment(clips, index, rng, vary=copy > 0), rng


def _render(task: tuple[int, int, int]) -> tuple[int, int, Int16, npt.NDArray[np.int64]]:
    assert _worker is not None
    augmenter, clips, seed = _worker
    copy, first, last = task
    audio = np.zeros((last - first, WINDOW_SAMPLES), np.int16)
    length = np.zeros(last - first, np.int64)
    for row, index in enumerate(range(first, last)):
        samples, rng = original(augmenter, clips, seed, copy, index)
        if copy > 0:
            samples = augmenter.degrade(samples, rng)
        audio[row, : len(samples)] = to_int16(samples)
        length[row] = len(samples)
    return copy, first, audio, length


def render(
    clips: Clips,
    settings: AugmentSettings,
    library: NoiseLibrary,
    seed: int,
    cache: Path,
    processes: int = 1,
    progress: bool = False,
) -> Bank:
    """Make the bank, or open it where `cache` already holds it.

    Raises
    ------
    TrainerError
        the cache cannot be written.
    """
    key = _key(clips, settings, library, seed)
    audio_path = cache / f"bank-{key}.npy"
    length_path = cache / f"bank-{key}.length.npy"
    if not length_path.is_file():
        shape = (settings.copies, len(clips), WINDOW_SAMPLES)
        length = np.zeros(shape[:2], np.int64)
        tasks = [
            (copy, first, min(first + _CHUNK, len(clips)))
            for copy in range(settings.copies)
            for first in range(0, len(clips), _CHUNK)
        ]
        augmenter = Augmenter(settings, library, clips)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            audio = np.lib.format.open_memmap(audio_path, "w+", np.int16, shape)
            with ProcessPoolExecutor(
                processes, get_context("fork"), _start_worker, (augmenter, clips, seed)
            ) as pool:
                rendered = pool.map(_render, tasks)
                for copy, first, block, lengths in tqdm(
                    rendered, "degrading", total=len(tasks), disable=not progress
                ):
                    audio[copy, first : first + len(block)] = block
                    length[copy, first : first + len(block)] = lengths
            audio.flush()
            # The lengths come last: their presence says that the audio is whole.
            np.save(length_path, length)
        except OSError as error:
            audio_path.unlink(missing_ok=True)
            raise TrainerError(f"{audio_path} cannot be written: {error.strerror}.") from None
    return Bank(np.load(audio_path, mmap_mode="r"), np.load(length_path), key)
