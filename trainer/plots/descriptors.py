"""What a recording sounds like in a few numbers: level, pitch, brightness, MFCCs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
from tqdm import tqdm

from trainer.audio import SAMPLE_RATE_HZ, Float32, save_atomically, to_float
from trainer.errors import TrainerError
from trainer.metrics import Float64
from trainer.plots.recordings import Recording, read_speech

_FRAME, _HOP = 1024, 512
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 600.0
N_MFCC = 13


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A column of values: its key, its name and its unit."""

    key: str
    title: str
    unit: str


DESCRIPTORS: tuple[Descriptor, ...] = (
    Descriptor("duration", "Duration of the speech", "s"),
    Descriptor("level", "Level (RMS)", "dBFS"),
    Descriptor("pitch", "Pitch (median F0)", "Hz"),
    Descriptor("pitch_range", "Pitch range (10th to 90th percentile)", "semitones"),
    Descriptor("centroid", "Spectral centroid", "Hz"),
    Descriptor("zcr", "Zero-crossing rate", "crossings per second"),
    *(Descriptor(f"mfcc{i}", f"MFCC {i}", "mean over time") for i in range(1, N_MFCC + 1)),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of some recordings: float64 [recordings, descriptors], nan where there is none."""

    recordings: tuple[Recording, ...]
    values: Float64

    def column(self, key: str) -> Float64:
        """Values of one descriptor: float64 [recordings]."""
        return self.values[:, [d.key for d in DESCRIPTORS].index(key)]


def describe(audio: Float32) -> Float64:
    """The descriptors of speech at 16 kHz: float32 [samples] to float64 [descriptors].

    Pitch by pYIN (Mauch & Dixon, 2014), over voiced frames; nan where none is voiced.
    """
    seconds = len(audio) / SAMPLE_RATE_HZ
    rms = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
    padded = np.pad(audio, (0, max(0, 2 * _FRAME - len(audio))))
    f0, _, _ = librosa.pyin(
        padded,
        fmin=_LOWEST_HZ,
        fmax=_HIGHEST_HZ,
        sr=SAMPLE_RATE_HZ,
        frame_length=_FRAME,
        hop_length=_HOP,
        resolution=0.2,
    )
    voiced = f0[np.isfinite(f0)]
    pitch = float(np.median(voiced)) if len(voiced) else float("nan")
    extent = float("nan")
    if len(voiced) > 3:
        low, high = np.quantile(voiced, [0.1, 0.9])
        extent = float(12 * np.log2(high / low))
    spectrum = np.abs(librosa.stft(padded, n_fft=_FRAME, hop_length=_HOP))
    energy = spectrum.sum(axis=0)
    centroid = librosa.feature.spectral_centroid(S=spectrum, sr=SAMPLE_RATE_HZ)[0]
    weighted = float(np.average(centroid, weights=energy)) if energy.any() else float("nan")
    crossings = librosa.zero_crossings(audio, pad=False).sum() / max(seconds, 1e-9)
    mfcc = librosa.feature.mfcc(
        y=padded, sr=SAMPLE_RATE_HZ, n_mfcc=N_MFCC, n_fft=_FRAME, hop_length=_HOP
    )
    level = 20 * np.log10(max(rms, 1e-6))
    return np.asarray(
        [seconds, level, pitch, extent, weighted, crossings, *mfcc.mean(axis=1)], np.float64
    )


def measure(
    recordings: Sequence[Recording], cache: Path | None = None, progress: bool = False
) -> Measured:
    """Descriptors of recordings; those that cannot be read are left out.

    With `cache` the values are kept there and read again as long as no file changes.
    """
    there = [r for r in recordings if r.path.is_file()]
    stored = cache / f"descriptors-{_fingerprint(there)}.npz" if cache is not None else None
    if stored is not None and stored.is_file():
        with np.load(stored) as arrays:
            kept, values = arrays["kept"], arrays["values"]
        return Measured(tuple(there[i] for i in kept), values)
    found, rows = [], []
    for i, recording in enumerate(
        tqdm(there, "measuring recordings", disable=None if progress else True)
    ):
        try:
            rows.append(describe(to_float(read_speech(recording.path))))
        except TrainerError:
            continue
        found.append(i)
    values = np.asarray(rows, np.float64).reshape(len(rows), len(DESCRIPTORS))
    if stored is not None:
        save_atomically(stored, kept=np.asarray(found, np.int64), values=values)
    return Measured(tuple(there[i] for i in found), values)


def _fingerprint(recordings: Sequence[Recording]) -> str:
    digest = hashlib.sha256(b"descriptors 1")
    for recording in recordings:
        stat = recording.path.stat()
        digest.update(json.dumps([str(recording.path), stat.st_size, stat.st_mtime_ns]).encode())
    return digest.hexdigest()[:16]
