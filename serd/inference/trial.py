"""Ways of running the same thing on a device: what a faster one must show before it is used.

What a GPU gains by (a recorded graph, fewer bits, a detector that runs there) depends on its
driver, its libraries and the model, and may fail on any of them. So at the start each is tried
beside the plain way on the same audio. It is used where it gives the same, within `TOLERANCE`, and
is faster; else the plain way is, and the log says why. So a start can be slower than it might, and
never wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import structlog

from serd.types import Float32Array, Int16Array

_log = structlog.get_logger(__name__)

T = TypeVar("T")

TOLERANCE = 5e-3
"""Most that a score or a probability may differ from the plain way's."""

_GAIN = 0.97
_ROUNDS = 7


class Way(NamedTuple, Generic[T]):
    """A way to try: its name for the log, what opens it, and whether it must be faster.

    One that the operator asked for by name need only be right.
    """

    name: str
    open: Callable[[], T]
    for_speed: bool = True


class Trial(NamedTuple, Generic[T]):
    """How ways are tried.

    `outcomes`: all that is compared, on audio like speech, float32, each ``[n, k]``; `work`: what
    is timed. Both are given what a way opened.
    """

    outcomes: Callable[[T], Sequence[Float32Array]]
    work: Callable[[T], Any]
    clock: Callable[[], float] = time.perf_counter


def better(plain: T, ways: Sequence[Way[T]], trial: Trial[T], what: str) -> T:
    """The last of the ways that is as right as the plain one and, if need be, faster than the best.

    Parameters
    ----------
    plain
        What is used if none of them is.
    ways
        In the order in which they are tried.
    trial
        How.
    what
        What runs, for the log.

    Raises
    ------
    Exception
        What the plain way raises; what the others raise is told in the log.
    """
    if not ways:
        return plain
    expected = trial.outcomes(plain)
    best, best_s = plain, _duration_s(plain, trial)
    for way in ways:
        # The runtime's exceptions share no base but Exception.
        try:
            opened = way.open()
            found = trial.outcomes(opened)
            difference = _difference(expected, found)
            if not difference <= TOLERANCE:
                told = f"results differ by {difference:.2g}, more than {TOLERANCE:g}"
                _log.warning("device.step.left_out", of=what, step=way.name, why=told)
                continue
            took_s = _duration_s(opened, trial)
        except Exception as error:
            _log.warning("device.step.left_out", of=what, step=way.name, why=str(error))
            continue
        gained = f"{1e3 * took_s:.3f} ms, was {1e3 * best_s:.3f} ms"
        if way.for_speed and took_s > _GAIN * best_s:
            told = f"not faster: {gained}"
            _log.info("device.step.left_out", of=what, step=way.name, why=told)
            continue
        _log.info("device.step.kept", of=what, step=way.name, took=gained, differs=difference)
        best, best_s = opened, took_s
    return best


def like_speech(rows: int, samples: int, sample_rate_hz: int) -> Int16Array:
    """Voiced syllables over faint noise, int16 ``[rows, samples]``: every row another voice."""
    rng = np.random.default_rng(0)
    seconds = np.arange(samples) / sample_rate_hz
    pitch_hz = rng.uniform(90, 250, (rows, 1))
    glide = 1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.3, 1, (rows, 1)) * seconds)
    phase = 2 * np.pi * np.cumsum(pitch_hz * glide, axis=1) / sample_rate_hz
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 5, (rows, 1)) * seconds), 0, None)
    noise = rng.standard_normal((rows, samples))
    found: Int16Array = (4000 * voice * syllables + 60 * noise).astype(np.int16)
    return found


def _duration_s(opened: T, trial: Trial[T]) -> float:
    took = []
    for _ in range(_ROUNDS):
        began = trial.clock()
        trial.work(opened)
        took.append(trial.clock() - began)
    return float(np.median(took))


def _difference(expected: Sequence[Float32Array], found: Sequence[Float32Array]) -> float:
    """The largest anywhere; NaN where one is not a number."""
    pairs = zip(expected, found, strict=True)
    return float(np.max([np.max(np.abs(one - other)) for one, other in pairs]))
