"""Waiting for a model: until it is there, the time is up or serd is to end."""

from __future__ import annotations

import collections
import itertools
import os
import threading
from collections.abc import Iterator

import pytest

from serd.channel import Waker
from serd.errors import ModelError
from serd.runtime.patience import Patience

HOUR_S = 3600.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def ended() -> Iterator[Waker]:
    waker = Waker()
    yield waker
    waker.close()


def _nothing() -> None:
    """For who is not called."""


def test_it_waits_for_as_many_steps_as_there_are(pipe: tuple[int, int], ended: Waker) -> None:
    patience = Patience("next", HOUR_S, ended, _nothing)
    for _ in range(3):
        writer = threading.Thread(target=os.write, args=(pipe[1], b"x"))
        writer.start()
        patience.until(pipe[0])
        writer.join()
        os.read(pipe[0], 1)


def test_the_end_of_a_pipe_is_an_answer(ended: Waker) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    Patience("next", HOUR_S, ended, _nothing).until(reading)
    os.close(reading)


def test_all_steps_have_one_deadline(pipe: tuple[int, int], ended: Waker) -> None:
    patience = Patience("next", 0.2, ended, _nothing)
    os.write(pipe[1], b"x")
    # Step after step, without end.
    for_ever = map(patience.until, itertools.repeat(pipe[0]))
    with pytest.raises(ModelError, match=r"'next': .* 0\.2 s") as refused:
        collections.deque(for_ever, maxlen=0)
    assert refused.value.code == "model_timeout"


def test_the_end_of_serd_comes_before_an_answer(pipe: tuple[int, int], ended: Waker) -> None:
    patience = Patience("next", HOUR_S, ended, _nothing)
    os.write(pipe[1], b"x")
    ended.wake()
    for _ in range(2):
        with pytest.raises(ModelError) as refused:
            patience.until(pipe[0])
        assert refused.value.code == "model_stopping"


def test_the_main_thread_has_other_things_to_do(pipe: tuple[int, int], ended: Waker) -> None:
    patience = Patience("next", HOUR_S, ended, ended.wake)
    with pytest.raises(ModelError, match="end"):
        patience.until(pipe[0])


def test_another_thread_has_not(pipe: tuple[int, int], ended: Waker) -> None:
    called: list[str] = []
    codes: list[str] = []

    def wait() -> None:
        with pytest.raises(ModelError) as refused:
            Patience("next", 1.2, ended, lambda: called.append("here")).until(pipe[0])
        codes.append(refused.value.code)

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join()
    assert codes == ["model_timeout"]
    assert called == []


def test_descriptors_may_be_many(ended: Waker) -> None:
    reading, writing = os.pipe()
    high = 1500
    os.dup2(reading, high)
    os.write(writing, b"x")
    Patience("next", HOUR_S, ended, _nothing).until(high)
    for fd in (reading, writing, high):
        os.close(fd)
