"""The established detector that ours learns from: silero's network, in the trainer only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serd.errors import ModelError
from serd.types import frame_samples
from serd.vad.silero import RESET_AFTER_SILENCE_MS, SileroDetector
from trainer.errors import TrainerError
from trainer.pcm import Float32, Int16

_NEVER_MS = 1e12


class Teacher:
    """Speech probabilities of silero's network for whole recordings.

    Without `resets` it is silero as published; with them, as the daemon runs it, which forgets
    what came before a second of silence.

    Raises
    ------
    TrainerError
        the package that carries the network is not installed.
    """

    def __init__(self, rows: int = 64, resets: bool = False) -> None:
        self._rows = rows
        reset_after_ms = RESET_AFTER_SILENCE_MS if resets else _NEVER_MS
        try:
            self._detectors = {
                rate_hz: SileroDetector.load(rate_hz, rows, reset_after_silence_ms=reset_after_ms)
                for rate_hz in (8000, 16_000)
            }
        except ModelError as error:
            raise TrainerError(f"The teacher is missing: {error}.") from None

    def recordings(self, samples: Int16, rate_hz: int) -> Float32:
        """int16 [recordings, samples] to float32 [recordings, frames]."""
        return np.stack(self.listen(list(samples), rate_hz))

    def listen(self, recordings: Sequence[Int16], rate_hz: int) -> list[Float32]:
        """Probability of every whole frame of every recording, each from a fresh state."""
        frame = frame_samples(rate_hz)
        detector = self._detectors[rate_hz]
        order = np.argsort([len(samples) for samples in recordings])
        out: list[Float32] = [np.empty(0, np.float32)] * len(recordings)
        for first in range(0, len(order), self._rows):
            chosen = order[first : first + self._rows]
            counts = np.array([len(recordings[k]) // frame for k in chosen])
            heard = [np.zeros(count, np.float32) for count in counts]
            detector.reset(np.arange(len(chosen)))
            for at in range(int(counts.max(initial=0))):
                rows = np.flatnonzero(counts > at)
                frames = np.stack(
                    [recordings[chosen[row]][at * frame : (at + 1) * frame] for row in rows]
                )
                for row, value in zip(rows, detector.step(rows, frames), strict=True):
                    heard[row][at] = value
            for number, probability in zip(chosen, heard, strict=True):
                out[number] = probability
        return out
