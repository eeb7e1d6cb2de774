"""What a peer's detector tells of a stream, and the rule for detectors that only give numbers."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from serd.types import Int16Array

# The daemon's defaults, given to every peer that has a setting for them.
ONSET_THRESHOLD = 0.5
OFFSET_THRESHOLD = 0.35
MIN_SPEECH_S = 0.25
HANGOVER_S = 0.5
PADDING_S = 0.2


class Boundary(NamedTuple):
    """Speech begins, or has ended, at sample `at` of the stream; padding included."""

    begins: bool
    at: int


class Detector(Protocol):
    """One stream's voice activity detection, at `rate_hz`, in blocks of any length."""

    rate_hz: int

    def feed(self, samples: Int16Array) -> list[Boundary]:
        """Take the next samples of the stream, int16 ``[n]``; tell what was decided."""
        ...


class Framer:
    """Cuts blocks into frames of a fixed length and keeps the rest for the next block."""

    def __init__(self, frame: int) -> None:
        self._frame = frame
        self._rest: Int16Array = np.zeros(0, np.int16)

    def frames(self, samples: Int16Array) -> list[Int16Array]:
        """The whole frames that are there now."""
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) // self._frame * self._frame
        self._rest = joined[whole:]
        return [joined[at : at + self._frame] for at in range(0, whole, self._frame)]


class Hysteresis:
    """Boundaries from the speech probability of frame after frame.

    Speech begins with a frame at the onset threshold and ends when no frame has reached the offset
    threshold for the hangover: what a program has that does not use its detector's own rule.
    """

    def __init__(self, rate_hz: int, frame: int) -> None:
        self._frame = frame
        self._padding = round(PADDING_S * rate_hz)
        self._hangover = round(HANGOVER_S * rate_hz)
        self._position = 0
        self._speech_end: int | None = None

    def step(self, probability: float) -> Boundary | None:
        """Take the probability of the next frame, 0 to 1."""
        start = self._position
        self._position += self._frame
        if self._speech_end is None:
            if probability < ONSET_THRESHOLD:
                return None
            self._speech_end = self._position
            return Boundary(True, max(0, start - self._padding))
        if probability >= OFFSET_THRESHOLD:
            self._speech_end = self._position
        elif self._position - self._speech_end >= self._hangover:
            end = self._speech_end + self._padding
            self._speech_end = None
            return Boundary(False, end)
        return None
