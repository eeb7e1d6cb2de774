"""The training set as the network sees it: copies of each utterance, degraded once, on disk.

Degrading costs more than a training step of a small network, so it is done once for a fixed
number of copies. SpecAugment and time shifts, which are cheap, vary anew in every epoch.

One bank serves all folds of a protocol: it holds whoever trains in some fold, and each fold takes
its own rows. Nothing of one utterance gets into another's copies unless both train in the same
folds, see `voice_groups`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from trainer.audio import WINDOW_SAMPLES, Clips, Float32, Int16, to_int16
from trainer.augment import Augmenter, AugmentSettings, NoiseLibrary
from trainer.corpora.base import Utterance
from trainer.errors import TrainerError
from trainer.splits import Split

_CHUNK = 64

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bank:
    """Segments ready to train on.

    Attributes
    ----------
    audio
        int16 [copies, stored utterances, 48000], zero beyond the length.
    length
        int64 [copies, utterances], valid samples.
    key
        digest of everything that the content depends on.
    rows
        int64 [utterances], the place of each among those stored.
    """

    audio: Int16
    length: Int64
    key: str
    rows: Int64

    def take(self, copies: Int64, utterances: Int64) -> Int16:
        """Audio of some segments: int16 [segments, 48000]."""
        return np.asarray(self.audio[copies, self.rows[utterances]])

    def subset(self, utterances: Int64) -> Bank:
        """The bank of some of its utterances, in the order given; the audio is shared."""
        rows = self.rows[utterances]
        digest = hashlib.sha256(self.key.encode() + rows.tobytes()).hexdigest()[:16]
        return Bank(self.audio, self.length[:, utterances], digest, rows)


def voice_groups(utterances: Sequence[Utterance], splits: Sequence[Split]) -> Int64:
    """Groups of utterances that are in the same part of every split: int64 [utterances].

    Babble made of an utterance's own group cannot carry a test speaker's voice into training.
    """
    parts: dict[str, list[str]] = {str(u.path): [] for u in utterances}
    for split in splits:
        there = {
            str(u.path): part
            for part, members in (
                ("train", split.train),
                ("validation", split.validation),
                ("test", split.test),
            )
            for u in members
        }
        for path, seen in parts.items():
            seen.append(there.get(path, ""))
    numbers: dict[tuple[str, ...], int] = {}
    return np.asarray(
        [numbers.setdefault(tuple(parts[str(u.path)]), len(numbers)) for u in utterances], np.int64
    )


def _key(
    clips: Clips, settings: AugmentSettings, library: NoiseLibrary, seed: int, groups: Int64
) -> str:
    digest = hashlib.sha256(b"bank 4")
    digest.update(json.dumps([settings.model_dump(mode="json"), seed]).encode())
    digest.update("\n".join(_name(u) for u in clips.utterances).encode())
    for array in (clips.samples, clips.offsets, clips.bounds, groups):
        digest.update(np.ascontiguousarray(array).tobytes())
    for sound in (*library.noises, *library.music, *library.rooms):
        digest.update(sound.tobytes())
    return digest.hexdigest()[:16]


def _name(utterance: Utterance) -> str:
    return f"{utterance.speaker_id}/{utterance.path.name}"


_worker: tuple[Augmenter, Clips, int] | None = None


def _start_worker(augmenter: Augmenter, clips: Clips, seed: int) -> None:
    # A worker process has one job for life, and the data are too large to send with each task.
    global _worker  # noqa: PLW0603
    _worker = (augmenter, clips, seed)


def original(
    augmenter: Augmenter, clips: Clips, seed: int, copy: int, index: int
) -> tuple[Float32, np.random.Generator]:
    """The segment that a copy starts from, and the generator that goes on to degrade it.

    One generator a segment: the result depends neither on the order of work nor on which other
    utterances there are.
    """
    rng = np.random.default_rng([seed, copy, crc32(_name(clips.utterances[index]).encode())])
    return augmenter.segment(clips, index, rng, vary=copy > 0), rng


def _render(task: tuple[int, int, int]) -> tuple[int, int, Int16, Int64]:
    assert _worker is not None
    augmenter, clips, seed = _worker
    copy, first, last = task
    audio = np.zeros((last - first, WINDOW_SAMPLES), np.int16)
    length = np.zeros(last - first, np.int64)
    for row, index in enumerate(range(first, last)):
        samples, rng = original(augmenter, clips, seed, copy, index)
        if copy >= augmenter.settings.clean_copies:
            samples = augmenter.degrade(samples, rng, index)
        audio[row, : len(samples)] = to_int16(samples)
        length[row] = len(samples)
    return copy, first, audio, length


def create_array(
    path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]
) -> np.memmap[tuple[int, ...], np.dtype[np.generic]]:
    """A new .npy file to write into, its room on the disk taken beforehand.

    Raises
    ------
    OSError
        there is no such room: found out now, and not by a signal in the middle of the work.
    """
    array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def render(
    clips: Clips,
    settings: AugmentSettings,
    library: NoiseLibrary,
    seed: int,
    cache: Path,
    processes: int = 1,
    progress: bool = False,
    groups: Int64 | None = None,
) -> Bank:
    """Make the bank, or open it where `cache` already holds it.

    Parameters
    ----------
    groups
        int64 [utterances], see `voice_groups`; left out: all are of one.

    Raises
    ------
    TrainerError
        the cache cannot be written.
    """
    if groups is None:
        groups = np.zeros(len(clips), np.int64)
    key = _key(clips, settings, library, seed, groups)
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
        augmenter = Augmenter(settings, library, clips, groups)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            audio = create_array(audio_path, np.int16, shape)
            with ProcessPoolExecutor(
                processes, get_context("fork"), _start_worker, (augmenter, clips, seed)
            ) as pool:
                rendered = pool.map(_render, tasks)
                for copy, first, block, lengths in tqdm(
                    rendered, "degrading", total=len(tasks), disable=None if progress else True
                ):
                    audio[copy, first : first + len(block)] = block
                    length[copy, first : first + len(block)] = lengths
            audio.flush()
            # The lengths come last: their presence says that the audio is whole.
            np.save(length_path, length)
        except OSError as error:
            for path in (audio_path, length_path):
                path.unlink(missing_ok=True)
            raise TrainerError(f"{audio_path} cannot be written: {error.strerror}.") from None
    rows = np.arange(len(clips))
    return Bank(np.load(audio_path, mmap_mode="r"), np.load(length_path), key, rows)
