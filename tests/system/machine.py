"""A booted Debian in a container, and processes inside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.fakes import wait_until

BOOT_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 120.0

Json = dict[str, Any]


class CannotBootError(Exception):
    """Containers do not boot here."""


class Machine:
    """What `booted` yields.

    Parameters
    ----------
    leader
        Process id, outside, of the container's process 1.
    """

    def __init__(self, leader: int) -> None:
        self._leader = leader

    @property
    def root(self) -> Path:
        """The container's root as seen from outside."""
        return Path(f"/proc/{self._leader}/root")

    def command(self, *command: str) -> list[str]:
        """`command` as it is to be started outside to run inside."""
        enter = ["nsenter", f"--target={self._leader}", "-m", "-u", "-i", "-n", "-p", "-r", "--"]
        # The folder outside does not exist inside.
        return [*enter, "/bin/sh", "-c", 'cd / && exec "$@"', "sh", *command]

    def run(self, *command: str, check: bool = True) -> str:
        """Standard output of a command, which must succeed unless `check` is false."""
        done = self.try_run(*command)
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def try_run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return subprocess.run(
            self.command(*command),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def write(self, path: str, text: str) -> None:
        """Write a file inside, and the folders above it."""
        # By a process inside, because a link in the path must lead to a place inside.
        script = 'mkdir -p "$(dirname "$1")" && printf %s "$2" > "$1"'
        self.run("/bin/sh", "-c", script, "sh", path, text)

    @contextmanager
    def running(self, *command: str) -> Iterator[Lines]:
        """A process inside that runs as long as the block; its lines are JSON."""
        process = subprocess.Popen(
            self.command(*command), cwd="/", stdout=subprocess.PIPE, text=True
        )
        lines = Lines(process)
        try:
            yield lines
        finally:
            # nsenter hands no signal on to its child.
            for child in _children(process.pid):
                _kill(child)
            process.kill()
            process.wait(10)
            lines.close()


class Lines:
    """The JSON lines that a process has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._stdout = process.stdout
        self._lines: list[Json] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stdout:
            with self._changed:
                self._lines.append(json.loads(line))
                self._changed.notify_all()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._lines)

    def since(self, position: int) -> list[Json]:
        """Those from a position on."""
        with self._changed:
            return self._lines[position:]

    def wait_for(
        self, wanted: Callable[[Json], bool], since: int = 0, timeout_s: float = 60.0
    ) -> Json:
        """The first one from a position on that is wanted, once it is there."""

        def found() -> Json | None:
            return next(filter(wanted, self._lines[since:]), None)

        with self._changed:
            assert self._changed.wait_for(found, timeout_s), f"not among {self._lines[since:][-3:]}"
            line = found()
        assert line is not None
        return line

    def close(self) -> None:
        """Read to the end."""
        self._thread.join(10)
        self._stdout.close()


@contextmanager
def booted(root: Path, binds: dict[Path, str], log: Path) -> Iterator[Machine]:
    """Boot a copy of `root` that is gone afterwards, with a network of its own: loopback.

    Raises
    ------
    CannotBootError
        The message ends with the last it said.
    """
    command = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"]
    command += ["--private-network", "--volatile=overlay", "--console=pipe"]
    command += [f"--bind-ro={outside}:{inside}" for outside, inside in binds.items()]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, f"--directory={root}"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(
            lambda: process.poll() is not None or _leader(process.pid) is not None,
            "the container to boot",
            BOOT_TIMEOUT_S,
        )
        leader = _leader(process.pid)
        if leader is None:
            raise CannotBootError(f"systemd-nspawn cannot boot here: {log.read_text()[-400:]}")
        yield Machine(leader)
    finally:
        for child in _children(process.pid):
            _kill(child)
        process.wait(30)


def _leader(nspawn: int) -> int | None:
    """The container's process 1, once it has started everything."""
    return next((child for child in _children(nspawn) if _is_up(Machine(child))), None)


def _is_up(machine: Machine) -> bool:
    state = machine.try_run("systemctl", "is-system-running").stdout.strip()
    return state in {"running", "degraded"}


def _children(pid: int) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
