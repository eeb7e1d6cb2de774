"""A real daemon in a process of its own, on free ports of this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serd.errors import DaemonError

_START_S = 120.0
_STOP_S = 30.0
_ANY_PORT = "tcp://127.0.0.1:*"


class ChildDaemon:
    """A `serd run` process and what it says on standard error."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: deque[str] = deque(maxlen=20)
        self._ready: dict[str, Any] | None = None
        self._told = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None, "started with a pipe"
        for text in self.process.stderr:
            self._lines.append(text.rstrip())
            if not self._told.is_set() and text.startswith("{"):
                entry = json.loads(text)
                if entry.get("event") == "ready":
                    self._ready = entry
                    self._told.set()
        self._told.set()

    def wait_ready(self, timeout_s: float = _START_S) -> dict[str, Any]:
        """The daemon's ready line.

        Raises
        ------
        DaemonError
            It ended, or did not become ready in time; the message has its last words.
        """
        self._told.wait(timeout_s)
        if self._ready is None:
            raise DaemonError("daemon_not_ready", f"the daemon did not start\n{self.last_words()}")
        return self._ready

    @property
    def tap(self) -> str:
        """Endpoint of its source."""
        (endpoint,) = (
            endpoint
            for endpoints in self.wait_ready()["sources"].values()
            for endpoint in endpoints
        )
        return str(endpoint)

    def check(self) -> None:
        """Make sure that it runs.

        Raises
        ------
        DaemonError
            It has ended; the message has its last words.
        """
        if self.process.poll() is not None:
            self._reader.join(1.0)
            raise DaemonError("daemon_died", f"the daemon ended\n{self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(f"  {text}" for text in self._lines)

    def end(self) -> None:
        """Tell it to stop, as a service manager does."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = _STOP_S) -> int:
        """Its exit status, once it has ended.

        Raises
        ------
        DaemonError
            It does not end in time.
        """
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise DaemonError(
                "daemon_hangs", f"the daemon did not stop in {timeout_s:g} s\n{self.last_words()}"
            ) from None


@contextmanager
def child_daemon(
    config_path: Path | None = None, overrides: Sequence[str] = (), socket: str = "PULL"
) -> Iterator[ChildDaemon]:
    """Start ``serd run`` with one ZeroMQ source; stop it at the end.

    Parameters
    ----------
    config_path, overrides
        As for the command; sources and endpoints are replaced.
    socket
        ``PULL`` or ``SUB``.
    """
    command = [sys.executable, "-m", "serd", "run"]
    if config_path is not None:
        command += ["--config", str(config_path)]
    for override in (
        *overrides,
        f'sources=[{{type="zmq", socket="{socket}", bind="{_ANY_PORT}"}}]',
        f"publish.bind={_ANY_PORT}",
        f"publish.replay_bind={_ANY_PORT}",
        "logging.format=json",
        "metrics.bind=127.0.0.1:0",
    ):
        command += ["--set", override]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield ChildDaemon(process)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
