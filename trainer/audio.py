"""Decoded recordings, held once as 16 kHz mono int16, and the windows cut from them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import numpy.typing as npt
import soundfile as sf
import soxr
from tqdm import tqdm

from trainer.corpora.base import Utterance
from trainer.errors import TrainerError

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 48_000
HOP_SAMPLES = 16_000

Int16 = npt.NDArray[np.int16]
Float32 = npt.NDArray[np.float32]


def to_float(samples: Int16) -> Float32:
    """int16 to float32 in [-1, 1)."""
    return samples.astype(np.float32) / 32768.0


def to_int16(samples: npt.NDArray[np.floating]) -> Int16:
    """float in [-1, 1] to int16, rounded, limited to the range."""
    scaled = np.rint(np.asarray(samples) * 32768.0)
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def decode(path: Path) -> Int16:
    """Samples of a file, channels averaged, at 16 kHz: int16 [samples].

    Raises
    ------
    TrainerError
        the file cannot be read.
    """
    try:
        samples, rate_hz = sf.read(path, dtype="float32", always_2d=True)
    except (sf.SoundFileError, OSError) as error:
        raise TrainerError(f"{path} cannot be read: {error}") from None
    mono = samples.mean(axis=1)
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
    return to_int16(mono)


def speech_bounds(samples: Int16, below_peak_db: float = 38.0) -> tuple[int, int]:
    """First and last sample of a clean recording's speech, by energy below its loudest frame.

    It stands in for the daemon's voice activity, whose utterances have no long silence around
    them. Meant for studio recordings only.
    """
    if not samples.any():
        return 0, len(samples)
    _, (start, end) = librosa.effects.trim(
        to_float(samples), top_db=below_peak_db, frame_length=512, hop_length=128
    )
    return int(start), int(end)


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


def _fingerprint(utterances: Sequence[Utterance]) -> str:
    digest = hashlib.sha256(b"clips 1")
    for utterance in utterances:
        stat = utterance.path.stat()
        line = json.dumps([str(utterance.path), stat.st_size, stat.st_mtime_ns])
        digest.update(line.encode())
    return digest.hexdigest()[:16]


def save_atomically(path: Path, **arrays: npt.NDArray[np.generic]) -> None:
    """Write an uncompressed .npz so that a reader never sees half of it.

    Raises
    ------
    TrainerError
        the folder cannot be written, or the disk is full.
    """
    part = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # numpy's stub takes only arrays of Any behind **.
        np.savez(part, **arrays)  # type: ignore[arg-type]
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TrainerError(f"{path} cannot be written: {error.strerror}.") from None


def load_clips(
    utterances: Sequence[Utterance], cache: Path | None = None, progress: bool = False
) -> Clips:
    """Decode every utterance once.

    With `cache`, the result is kept there and read again as long as no file's size or
    modification time changes. Files that cannot be decoded are left out and told on stderr.

    Raises
    ------
    TrainerError
        no file can be decoded.
    """
    stored = cache / f"clips-{_fingerprint(utterances)}.npz" if cache is not None else None
    if stored is not None and stored.is_file():
        with np.load(stored) as arrays:
            kept, samples = arrays["kept"], arrays["samples"]
            offsets, bounds = arrays["offsets"], arrays["bounds"]
    else:
        pieces: list[Int16] = []
        found: list[int] = []
        limits: list[tuple[int, int]] = []
        for i, utterance in enumerate(tqdm(utterances, "decoding", disable=not progress)):
            try:
                piece = decode(utterance.path)
            except TrainerError as error:
                tqdm.write(f"left out: {error}", file=sys.stderr)
                continue
            if not len(piece):
                tqdm.write(f"left out: {utterance.path} is empty", file=sys.stderr)
                continue
            pieces.append(piece)
            found.append(i)
            limits.append(speech_bounds(piece))
        if not pieces:
            raise TrainerError("Not one of the recordings can be read.")
        kept = np.asarray(found, np.int64)
        samples = np.concatenate(pieces)
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).astype(np.int64)
        bounds = np.asarray(limits, np.int64)
        if stored is not None:
            save_atomically(stored, kept=kept, samples=samples, offsets=offsets, bounds=bounds)
    return Clips(tuple(utterances[i] for i in kept), samples, offsets, bounds)
