"""Signals and requests reach the main thread, in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from serd.runtime.mainloop import MainLoop


@pytest.fixture
def loop() -> Iterator[MainLoop]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield MainLoop()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_requests_are_done_in_order_by_whoever_waits(loop: MainLoop) -> None:
    done: list[tuple[int, int]] = []

    def note(number: int) -> None:
        done.append((number, threading.get_ident()))

    def ask() -> None:
        for number in range(3):
            loop.call(partial(note, number))

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join()
    for _ in range(3):
        loop.wait(60)
    assert done == [(number, threading.get_ident()) for number in range(3)]


def test_a_hangup_is_a_request(loop: MainLoop) -> None:
    done: list[str] = []
    loop.listen(lambda: done.append("reload"))
    signal.raise_signal(signal.SIGHUP)
    assert done == []
    loop.wait(60)
    assert done == ["reload"]
    assert not loop.ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_wait_at_once(loop: MainLoop, number: signal.Signals) -> None:
    loop.listen(lambda: None)
    waiting = threading.Thread(target=lambda: signal.pthread_kill(main, number))
    main = threading.get_ident()
    waiting.start()
    loop.wait(3600)
    waiting.join()
    assert loop.ended


def test_nothing_is_waited_for_after_the_end(loop: MainLoop) -> None:
    loop.end()
    loop.wait(3600)
    loop.wait(3600)
    assert loop.ended


def test_who_wants_to_know_of_the_end_is_told_in_the_midst_of_a_request(loop: MainLoop) -> None:
    told: list[str] = []
    loop.listen(lambda: None)
    loop.at_end(lambda: told.append("end"))

    def request() -> None:
        signal.raise_signal(signal.SIGTERM)
        assert told == ["end"]

    loop.call(request)
    loop.wait(60)
    assert loop.ended


def test_who_asks_after_the_end_is_told_at_once(loop: MainLoop) -> None:
    told: list[str] = []
    loop.end()
    loop.at_end(lambda: told.append("end"))
    assert told == ["end"]
