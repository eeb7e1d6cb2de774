"""A service of the machine, as systemctl and journalctl see it."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

from tests.fakes import wait_until
from tests.system.machine import Json, Lines, Machine

UNITS = Path(__file__).parents[2] / "systemd"
PYTHON = "/opt/serd/1/bin/python"
TAP, EVENTS = "tcp://127.0.0.1:5550", "tcp://127.0.0.1:5556"
CONFIG = """\
[daemon]
heartbeat_s = 1.0
"""


class Service:
    """One unit."""

    def __init__(self, machine: Machine, unit: str) -> None:
        self.machine = machine
        self.unit = unit
        self._since = ""

    def systemctl(self, verb: str, check: bool = True) -> str:
        """Run ``systemctl VERB`` on the unit."""
        return self.machine.run("systemctl", verb, self.unit, check=check)

    def restart(self) -> None:
        """Start it anew, with its units read again and its journal beginning here."""
        self._since = (
            self.machine.run("journalctl", "--lines=0", "--show-cursor", "--quiet")
            .partition("cursor: ")[2]
            .strip()
        )
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "reset-failed", self.unit, check=False)
        self.systemctl("restart")

    def forget(self) -> None:
        """Stop it, whatever state it is in."""
        self.systemctl("stop", check=False)

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.machine.run(
            "systemctl", "show", "--value", f"--property={name}", self.unit
        ).strip()

    @property
    def pid(self) -> str:
        """The main process, as the machine inside counts."""
        return self.show("MainPID")

    def wait_status(self, words: str) -> None:
        """Wait until the line in ``systemctl status`` says so."""
        wait_until(lambda: words in self.show("StatusText"), f"a status with {words!r}")

    def wait_restarted(self, before: str, timeout_s: float = 60.0) -> None:
        """Wait until another main process is ready."""
        wait_until(
            lambda: self.show("ActiveState") == "active" and self.pid not in {before, "0"},
            "a restart",
            timeout_s,
        )

    def journal(self) -> list[str]:
        """What it has said since `restart`, and systemd about it."""
        command = ["journalctl", "--unit", self.unit, "--output=cat", "--quiet"]
        after = [f"--after-cursor={self._since}"] if self._since else []
        return self.machine.run(*command, *after).splitlines()

    def logged(self, event: str) -> list[Json]:
        """Its log entries of a name."""
        entries = (json.loads(line) for line in self.journal() if line.startswith("{"))
        return [entry for entry in entries if entry.get("event") == event]

    def feed(self, *streams: str, tap: str = TAP) -> AbstractContextManager[Lines]:
        """Calls in real time."""
        return self.machine.running(PYTHON, "/opt/inside/feed.py", tap, *streams)

    def listen(self, events: str = EVENTS) -> AbstractContextManager[Lines]:
        """A subscriber to everything."""
        return self.machine.running(PYTHON, "/opt/inside/listen.py", events)
