"""``kill -9`` of the publisher and of the subscriber, at random moments, in processes."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from serd.protocol.events import decode
from serd.sinks.journal.reader import Reader
from tests.fakes import wait_until

KILLS = int(os.environ.get("SERD_KILLS", "10"))
PATIENCE_S = 60.0


def _free_port() -> int:
    # Below the ports that other sockets are given, so that nobody takes it between two processes.
    chance = random.Random()
    while True:
        port = chance.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Processes:
    """A publisher and a subscriber, started anew after every kill."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "events.sqlite"
        self.read = folder / "read"
        endpoints = [f"tcp://127.0.0.1:{_free_port()}" for _ in range(2)]
        self._commands = {
            "publisher": ["tests.client.publishing", str(self.journal), *endpoints],
            "subscriber": ["tests.client.reading", *endpoints, str(self.read)],
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", *self._commands[name]]
        self._running[name] = subprocess.Popen(command, stdin=subprocess.PIPE)

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.communicate()

    def stop_publisher(self) -> None:
        process = self._running.pop("publisher")
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0

    def end(self) -> None:
        for name in list(self._running):
            self.kill(name)

    def lines(self) -> int:
        return self.read.read_bytes().count(b"\n") if self.read.exists() else 0

    def await_more(self, number: int) -> None:
        target = self.lines() + number
        wait_until(lambda: self.lines() >= target, f"{number} more events", PATIENCE_S)

    def journalled(self) -> list[str]:
        ids: list[str] = []
        with closing(Reader(self.journal)) as reader:
            after, more = 0, True
            while more:
                page = reader.page(after, limit=10_000)
                assert page.gaps == []
                ids += [decode(event.payload).id for event in page.events]
                after, more = page.reached, page.more
        return ids


@pytest.mark.timeout(400)
def test_every_event_once_and_in_order_whoever_is_killed(tmp_path: Path) -> None:
    chance = random.Random(20260101)
    processes = Processes(tmp_path)
    try:
        processes.start("publisher")
        processes.start("subscriber")
        for _ in range(KILLS):
            processes.await_more(chance.randrange(1, 1500))
            victims = chance.choice([["publisher"], ["subscriber"], ["publisher", "subscriber"]])
            for victim in victims:
                processes.kill(victim)
            for victim in victims:
                processes.start(victim)
        processes.await_more(100)
        processes.stop_publisher()
        wanted = processes.journalled()
        # The end of the run is on its way, or else comes with the next run.
        processes.start("publisher")
        processes.await_more(1)
        wait_until(lambda: f"\n{wanted[-1]}\n" in processes.read.read_text(), "the end", PATIENCE_S)
    finally:
        processes.end()
    lines = processes.read.read_text().splitlines()
    assert [line for line in lines if line.startswith("#Missed")] == []
    got = [line for line in lines if not line.startswith("#")]
    assert got[: len(wanted)] == wanted
    cursors = [int(one.partition("-")[2]) for one in got]
    assert cursors == sorted(set(cursors))
