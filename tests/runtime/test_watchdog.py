"""The service manager is told that all is well while every stage moves, and only then."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serd.pulse import Pulse
from serd.runtime.systemd import Notifier
from serd.runtime.watchdog import Watchdog, patience_s


class Manager:
    """Stands for systemd: a datagram socket."""

    def __init__(self, path: Path, watchdog_s: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self.notifier = Notifier(
            {
                "NOTIFY_SOCKET": str(path),
                "WATCHDOG_USEC": str(round(watchdog_s * 1e6)),
                "WATCHDOG_PID": str(os.getpid()),
            }
        )

    def told(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify", 20.0)
    yield manager
    manager.close()


def test_it_is_fed_until_a_stage_is_stuck_and_again_when_it_moves(manager: Manager) -> None:
    now_ns = [0]
    pulse = Pulse(patience_s(manager.notifier), now_ns=lambda: now_ns[0])
    stage = pulse.stage("speech")
    watchdog = Watchdog(pulse, manager.notifier)
    for _ in range(11):
        now_ns[0] += 1_000_000_000
        assert watchdog.feed() == ()
    assert manager.told() == ["WATCHDOG=1"] * 11
    now_ns[0] += 1_000_000_000
    assert watchdog.feed() == ("speech",)
    assert manager.told() == []
    stage.beat()
    assert watchdog.feed() == ()
    assert manager.told() == ["WATCHDOG=1"]


def test_it_feeds_well_within_the_patience_of_the_manager(tmp_path: Path) -> None:
    manager = Manager(tmp_path / "impatient", 2.0)
    try:
        assert Watchdog(Pulse(), manager.notifier).tick_s == 0.5
        assert patience_s(manager.notifier) == 1.0
    finally:
        manager.close()


def test_without_a_manager_stages_are_looked_at_all_the_same() -> None:
    now_ns = [0]
    pulse = Pulse(patience_s(Notifier({})), now_ns=lambda: now_ns[0])
    pulse.stage("publish")
    watchdog = Watchdog(pulse, Notifier({}))
    for _ in range(20):
        now_ns[0] += round(watchdog.tick_s * 1e9)
        watchdog.feed()
    assert pulse.stuck() == ("publish",)
