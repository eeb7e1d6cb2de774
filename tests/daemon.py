"""A real serd daemon in a process of its own, for tests that need one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 60.0

Json = dict[str, Any]


class RunningDaemon:
    """A daemon that is ready, its endpoints and what it logs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[Json] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": "unparsed", "line": line}
            self.log.append(entry)
            if entry.get("event") == "ready":
                self._ready.set()
        self._ready.set()

    def wait_ready(self) -> Json:
        if not self._ready.wait(START_TIMEOUT_S) or not self.logged("ready"):
            raise AssertionError(f"the daemon did not become ready; it logged {self.log}")
        return self.logged("ready")[0]

    def logged(self, event: str) -> list[Json]:
        return [entry for entry in self.log if entry.get("event") == event]

    @property
    def tap(self) -> str:
        """Endpoint of the first ZeroMQ source."""
        return str(next(iter(self.wait_ready()["sources"].values()))[0])

    def taps(self, source: str) -> list[str]:
        return list(self.wait_ready()["sources"][source])

    @property
    def http(self) -> str:
        """Where it serves metrics and health."""
        return str(self.wait_ready()["metrics"])

    @property
    def events(self) -> str:
        return str(self.wait_ready()["publish"][0])

    @property
    def replay(self) -> str:
        return str(self.wait_ready()["replay"][0])

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM, the exit status, and all of its log."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout_s)
        self._reader.join(10)
        return status

    def release(self) -> None:
        """Read its log to the end and close it."""
        self._reader.join(10)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def memory_kib(self) -> int:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1])

    def cpu_s(self) -> float:
        """Processor seconds the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running_daemon(
    folder: Path,
    config: str = "",
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Iterator[RunningDaemon]:
    """Start ``serd run`` on free loopback ports and yield it ready; stop it at the end.

    `config` is TOML; without a ``[[sources]]`` in it there is one PULL source.
    """
    if "[[sources]]" not in config:
        config += '\n[[sources]]\ntype = "zmq"\nsocket = "PULL"\nbind = "tcp://127.0.0.1:*"\n'
    if "[publish]" not in config:
        config += '\n[publish]\nbind = "tcp://127.0.0.1:*"\nreplay_bind = "tcp://127.0.0.1:*"\n'
    path = folder / f"serd-{time.monotonic_ns()}.toml"
    path.write_text(config)
    command = [sys.executable, "-m", "serd", "run", "--config", str(path)]
    if "[metrics]" not in config:
        overrides = ("metrics.bind=127.0.0.1:0", *overrides)
    for override in ("logging.format=json", *overrides):
        command += ["--set", override]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environ or {})}
    )
    daemon = RunningDaemon(process)
    try:
        daemon.wait_ready()
        yield daemon
    except BaseException as error:
        # Whoever waits for what a daemon will never do again should learn why.
        if process.poll() not in (None, 0):
            lines = [entry.get("line", "") for entry in daemon.logged("unparsed")]
            error.add_note(f"The daemon ended with status {process.returncode}: {''.join(lines)}")
        raise
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        daemon.release()
