"""A model that is to be used: how it is opened, and what it must stand first."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from serd.inference.model import EmotionModel
from serd.inference.runner import Precision
from serd.inference.schema import EmotionManifest
from serd.types import NATIVE_RATES_HZ, Int16Array


class Candidate(NamedTuple):
    """A model, and all that decides how it is opened; plain values, to be told to a process.

    `manifest`: path of its manifest; `window_s`: longest segment that it will be given; the others
    as `EmotionModel.load` takes them.
    """

    manifest: str
    device: str
    threads: int
    batch_sizes: tuple[int, ...]
    precision: Precision
    window_s: float

    def open(self) -> EmotionModel:
        """Open the model, and check that it can take its segments.

        Raises
        ------
        ModelError, DeviceError
            It cannot be used so; the message names the field.
        """
        model = EmotionModel.load(
            self.manifest,
            self.device,
            threads=self.threads,
            batch_sizes=self.batch_sizes,
            precision=self.precision,
        )
        model.manifest.check_window(self.window_s)
        return model


def rehearse(model: EmotionModel) -> None:
    """Warm a model up, then score what calls are made of besides speech.

    That is silence, clipping, the shortest of pieces.

    Raises
    ------
    ModelError
        What `EmotionModel.score` raises, NaN and infinity included.
    """
    model.warm_up()
    for rate_hz in NATIVE_RATES_HZ:
        samples = model.samples * rate_hz // model.sample_rate_hz
        square = np.where(np.arange(samples) // 20 % 2, 32767, -32768).astype(np.int16)
        pieces = [np.zeros(samples, np.int16), square, square[: max(1, samples // 10)]]
        model.score([_Piece(audio, rate_hz) for audio in pieces])


def digest(manifest: EmotionManifest) -> str:
    """SHA-256 of all that a manifest says, the hashes of its files included."""
    return hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()


class _Piece(NamedTuple):
    audio: Int16Array
    sample_rate_hz: int
