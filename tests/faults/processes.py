"""Daemons, taps and subscribers as processes that a test may kill and start again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import zmq

from tests.daemon import RunningDaemon

Json = dict[str, Any]

# The daemon under test, with what costs least: what is tested here is not what it hears.
CHEAP = (
    "vad.detector=energy",
    "daemon.heartbeat_s=0.5",
    "logging.format=json",
    'metrics.bind=""',
)


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody uses, and that a restarted daemon can be given again."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Service:
    """A daemon that keeps its endpoints and its files over its lives, as a service does.

    Parameters
    ----------
    config
        TOML, without ``[[sources]]`` and ``[publish]`` binds, which are made here: the sources
        ``pull`` and ``sub``, and the sockets for events and replay.
    prefix
        Command that the daemon's own is given to, such as ``faketime``.
    """

    def __init__(
        self,
        folder: Path,
        overrides: Sequence[str] = (),
        config: str = "",
        environ: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        host: str = "127.0.0.1",
    ) -> None:
        pull, sub, events, replay = free_ports(4)
        self.pull, self.sub, self.events, self.replay = (
            f"tcp://{host}:{port}" for port in (pull, sub, events, replay)
        )
        path = folder / "serd.toml"
        path.write_text(
            f"{config}\n"
            f'[[sources]]\ntype = "zmq"\nname = "pull"\nsocket = "PULL"\nbind = "{self.pull}"\n'
            f'[[sources]]\ntype = "zmq"\nname = "sub"\nsocket = "SUB"\nbind = "{self.sub}"\n'
        )
        self._command = [*prefix, sys.executable, "-m", "serd", "run", "--config", str(path)]
        sockets = (f'publish.bind=["{self.events}"]', f'publish.replay_bind=["{self.replay}"]')
        for override in (*CHEAP, *sockets, *overrides):
            self._command += ["--set", override]
        self._environ = {**os.environ, "OMP_NUM_THREADS": "1", **(environ or {})}
        self.lives: list[RunningDaemon] = []

    @property
    def daemon(self) -> RunningDaemon:
        """The present life."""
        return self.lives[-1]

    @property
    def pid(self) -> int:
        return self.daemon.process.pid

    def start(self, *, wait: bool = True) -> RunningDaemon:
        """Begin another life; the one before has ended."""
        if self.lives:
            self.daemon.release()
        process = subprocess.Popen(
            self._command, stderr=subprocess.PIPE, text=True, env=self._environ
        )
        self.lives.append(RunningDaemon(process))
        if wait:
            self.daemon.wait_ready()
        return self.daemon

    def kill(self) -> None:
        """End this life as the kernel would, without a word."""
        self.daemon.process.kill()
        self.daemon.process.wait(30)
        self.daemon.release()

    def descriptors(self) -> int:
        """Files and sockets that the daemon has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the present life, if need be with force."""
        process = self.daemon.process
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self.daemon.release()


class Child:
    """A process of one of the modules beside this one."""

    def __init__(
        self, module: str, *arguments: object, prefix: Sequence[str] = (), feed: bool = False
    ) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", f"tests.faults.{module}", *map(str, arguments)],
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM and the exit status."""
        if self.alive:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(60)


@contextmanager
def child(module: str, *arguments: object, prefix: Sequence[str] = ()) -> Iterator[Child]:
    """A `Child` that is gone at the end."""
    one = Child(module, *arguments, prefix=prefix)
    try:
        yield one
    finally:
        if one.alive:
            one.kill()


def heard(path: Path) -> list[Json]:
    """What a subscriber process has written so far, whole lines alone."""
    if not path.exists():
        return []
    text = path.read_bytes()
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


@contextmanager
def pushing(endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    """A PUSH socket that lets go without waiting for a peer."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 0
        socket.sndtimeo = 60_000
        socket.connect(endpoint)
        yield socket
