from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from structlog.testing import capture_logs

from serd.inference.trial import TOLERANCE, Trial, Way, better, like_speech
from serd.types import Float32Array


class Engine:
    """Something that takes a time, by the test's clock, and gives a result."""

    def __init__(self, clock: list[float], took_s: float, result: float | Exception) -> None:
        self._clock = clock
        self._took_s = took_s
        self._result = result

    def outcomes(self) -> Sequence[Float32Array]:
        if isinstance(self._result, Exception):
            raise self._result
        return [np.zeros((2, 3), np.float32), np.full((4, 3), self._result, np.float32)]

    def work(self) -> None:
        self._clock[0] += self._took_s


class Try:
    def __init__(self) -> None:
        self.clock = [0.0]
        self.trial: Trial[Engine] = Trial(Engine.outcomes, Engine.work, lambda: self.clock[0])
        self.plain = self.engine(1.0, 0.5)

    def engine(self, took_s: float, result: float | Exception) -> Engine:
        return Engine(self.clock, took_s, result)

    def of(self, *ways: Way[Engine]) -> tuple[Engine, list[tuple[str, str]]]:
        with capture_logs() as logs:
            found = better(self.plain, ways, self.trial, "engine")
        return found, [(str(line["event"]), str(line["step"])) for line in logs]


def way(name: str, engine: Engine, *, for_speed: bool = True) -> Way[Engine]:
    return Way(name, lambda: engine, for_speed)


KEPT, LEFT = "device.step.kept", "device.step.left_out"


def test_the_fastest_that_is_right_is_used() -> None:
    tried = Try()
    quick, quicker = tried.engine(0.8, 0.5), tried.engine(0.5, 0.5 + TOLERANCE / 2)
    found, told = tried.of(way("a", quick), way("b", quicker))
    assert found is quicker
    assert told == [(KEPT, "a"), (KEPT, "b")]


@pytest.mark.parametrize(
    ("took_s", "result"),
    [
        (0.1, 0.5 + 1.1 * TOLERANCE),
        (0.1, 0.5 - 1.1 * TOLERANCE),
        (0.1, float("nan")),
        (0.1, RuntimeError("CUDA failure 901")),
        (0.99, 0.5),
        (2.0, 0.5),
    ],
    ids=["too much", "too little", "nan", "raises", "no faster", "slower"],
)
def test_one_that_is_not_right_or_not_faster_is_left_out(
    took_s: float, result: float | Exception
) -> None:
    tried = Try()
    found, told = tried.of(way("a", tried.engine(took_s, result)))
    assert found is tried.plain
    assert told == [(LEFT, "a")]


def test_one_that_cannot_be_opened_is_left_out_and_the_next_is_tried() -> None:
    tried = Try()
    good = tried.engine(0.5, 0.5)

    def fail() -> Engine:
        raise RuntimeError("This session cannot use the graph capture feature")

    found, told = tried.of(Way("a", fail), way("b", good))
    assert found is good
    assert told == [(LEFT, "a"), (KEPT, "b")]


def test_what_was_asked_for_by_name_need_not_be_faster() -> None:
    tried = Try()
    asked = tried.engine(1.5, 0.5)
    assert tried.of(way("a", asked, for_speed=False))[0] is asked
    wrong = tried.engine(0.1, 0.6)
    assert tried.of(way("a", wrong, for_speed=False))[0] is tried.plain


def test_what_the_plain_way_raises_is_raised() -> None:
    tried = Try()
    tried.plain = tried.engine(1.0, RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        tried.of(way("a", tried.engine(0.1, 0.5)))


def test_with_nothing_to_try_nothing_is_run() -> None:
    tried = Try()
    tried.plain = tried.engine(1.0, RuntimeError("not to be run"))
    assert tried.of() == (tried.plain, [])


@pytest.mark.parametrize("rate_hz", [8000, 16000])
def test_the_audio_is_like_speech(rate_hz: int) -> None:
    audio = like_speech(4, 3 * rate_hz, rate_hz)
    assert audio.shape == (4, 3 * rate_hz)
    level = np.sqrt(np.mean(audio.astype(np.float64) ** 2, axis=1)) / 32768
    assert ((level > 0.01) & (level < 0.5)).all()
    assert np.abs(audio.astype(np.int32)).max() < 32767
    # Every row is another.
    assert len({row.tobytes() for row in audio}) == 4
    np.testing.assert_array_equal(like_speech(4, 3 * rate_hz, rate_hz), audio)
