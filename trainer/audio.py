"""Decoded recordings, held once as 16 kHz mono int16, and the windows cut from them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from trainer.cache import load_arrays, save_atomically
from trainer.corpora.base import Utterance
from trainer.errors import TrainerError
from trainer.pcm import SAMPLE_RATE_HZ, Float32, Int16, decode, to_float, to_int16
from trainer.preparation import Prepared, PrepareSettings, prepare_file, speech_bounds

__all__ = [
    "HOP_SAMPLES",
    "SAMPLE_RATE_HZ",
    "WINDOW_SAMPLES",
    "Clips",
    "Float32",
    "Int16",
    "decode",
    "load_clips",
    "save_atomically",
    "speech_bounds",
    "to_float",
    "to_int16",
    "windows",
]

WINDOW_SAMPLES = 48_000
HOP_SAMPLES = 16_000
_VERSION = 2
_DEFAULT = PrepareSettings()


def windows(samples: int) -> list[tuple[int, int]]:
    """Segments (start, end) that the daemon cuts from an utterance of so many samples.

    3 s every 1 s, and a last one that ends with the utterance.
    """
    if samples <= WINDOW_SAMPLES:
        return [(0, samples)]
    starts = list(range(0, samples - WINDOW_SAMPLES + 1, HOP_SAMPLES))
    if starts[-1] + WINDOW_SAMPLES < samples:
        starts.append(samples - WINDOW_SAMPLES)
    return [(start, start + WINDOW_SAMPLES) for start in starts]


@dataclass(frozen=True, slots=True)
class Clips:
    """Recordings end to end in one array, with their speech bounds.

    Attributes
    ----------
    utterances
        those that could be read, in order.
    samples
        int16 [all samples].
    offsets
        int64 [utterances + 1].
    bounds
        int64 [utterances, 2], speech within each recording.
    """

    utterances: tuple[Utterance, ...]
    samples: Int16
    offsets: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.utterances)

    def clip(self, index: int) -> Int16:
        """The whole recording."""
        return self.samples[self.offsets[index] : self.offsets[index + 1]]

    def speech(self, index: int, padding_samples: int = 3200) -> Int16:
        """The recording from its speech's onset to its offset, with padding on either side."""
        start, end = self.bounds[index]
        clip = self.clip(index)
        return clip[max(0, start - padding_samples) : min(len(clip), end + padding_samples)]


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where one prepared recording is kept, and the state of the file that it was made from."""

    path: Path
    stamp: npt.NDArray[np.int64]

    def load(self) -> Prepared | None:
        """What is kept, or None where there is nothing or it was made from another state.

        Raises
        ------
        TrainerError
            it is damaged.
        """
        try:
            arrays = load_arrays(self.path)
        except FileNotFoundError:
            return None
        try:
            stamp, samples, bounds = arrays["stamp"], arrays["samples"], arrays["bounds"]
        except KeyError as error:
            raise TrainerError(f"{self.path} is damaged: {error} is missing") from None
        if not np.array_equal(stamp, self.stamp):
            return None
        return Prepared(samples, (int(bounds[0]), int(bounds[1])))

    def save(self, prepared: Prepared) -> None:
        bounds = np.asarray(prepared.bounds, np.int64)
        save_atomically(self.path, stamp=self.stamp, samples=prepared.samples, bounds=bounds)


def _entry(source: Path, cache: Path, identity: str) -> _Entry:
    """Raises OSError where the source does not exist."""
    stat = source.stat()
    name = json.dumps([str(source.absolute()), identity])
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    stamp = np.asarray([_VERSION, stat.st_size, stat.st_mtime_ns], np.int64)
    return _Entry(cache / "clips" / f"{digest}.npz", stamp)


def _tell(message: str) -> None:
    tqdm.write(message, file=sys.stderr)


def _attempt(settings: PrepareSettings, path: Path) -> Prepared | str:
    """A recording, or why there is none."""
    try:
        prepared = prepare_file(path, settings)
    except TrainerError as error:
        return str(error)
    return prepared if len(prepared.samples) else f"{path} is empty"


def _attempts(
    paths: Sequence[Path], settings: PrepareSettings, processes: int
) -> Iterator[Prepared | str]:
    job = partial(_attempt, settings)
    if processes == 1 or len(paths) < 2:
        yield from map(job, paths)
        return
    try:
        with ProcessPoolExecutor(processes, get_context("fork")) as pool:
            yield from pool.map(job, paths, chunksize=8)
    except BrokenProcessPool:
        raise TrainerError(
            "A process that decodes was killed, perhaps for want of memory: try fewer processes."
        ) from None


def load_clips(
    utterances: Sequence[Utterance],
    cache: Path | None = None,
    progress: bool = False,
    prepare: PrepareSettings = _DEFAULT,
    processes: int = 1,
) -> Clips:
    """Decode and prepare every utterance once.

    With `cache`, each recording is kept there on its own, whatever set it was asked for in, and
    read again as long as its size, its modification time and the settings stay as they were.
    Files that cannot be decoded are left out and told on stderr; so is what is damaged in the
    cache, which is then made anew.

    Raises
    ------
    TrainerError
        no file can be decoded, or the cache cannot be written; what was kept before stays.
    """
    identity = prepare.identity()
    found: dict[int, Prepared] = {}
    entries: dict[int, _Entry] = {}
    missing: list[int] = []
    for i, utterance in enumerate(utterances):
        if cache is not None:
            try:
                entries[i] = _entry(utterance.path, cache, identity)
                kept = entries[i].load()
            except OSError as error:
                _tell(f"left out: {utterance.path} cannot be read: {error.strerror}")
                continue
            except TrainerError as error:
                _tell(f"made anew: {error}")
                kept = None
            if kept is not None:
                found[i] = kept
                continue
        missing.append(i)
    attempts = _attempts([utterances[i].path for i in missing], prepare, processes)
    bar = tqdm(attempts, "decoding", len(missing), disable=None if progress and missing else True)
    for i, attempt in zip(missing, bar, strict=True):
        if isinstance(attempt, str):
            _tell(f"left out: {attempt}")
            continue
        if i in entries:
            entries[i].save(attempt)
        found[i] = attempt
    if not found:
        raise TrainerError("Not one of the recordings can be read.")
    order = sorted(found)
    pieces = [found[i].samples for i in order]
    return Clips(
        tuple(utterances[i] for i in order),
        np.concatenate(pieces),
        np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64),
        np.asarray([found[i].bounds for i in order], np.int64),
    )
