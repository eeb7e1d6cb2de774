"""Takes every event of a daemon, with the moment at which it came, and reads them later."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Self

import zmq

from serd.errors import BindError
from serd.protocol.events import DaemonEvent, Event, decode

_HANDSHAKE_MS = 20_000
_POLL_MS = 100
_CLOSED = b'"state":"closed"'


class Arrival(NamedTuple):
    """An event as it came; `at_ns` is the monotonic time at which this process had it."""

    at_ns: int
    topic: bytes
    payload: bytes


class Receiver:
    """A subscriber in a thread of its own. A context manager.

    It keeps bytes and looks into none but those of ``stream`` events: reading the JSON would take
    processor time from what is measured.

    Raises
    ------
    BindError
        Nobody answers at the endpoint.
    """

    def __init__(self, endpoint: str) -> None:
        self.arrivals: list[Arrival] = []
        self.cpu_ns = 0
        self._endpoint = endpoint
        self._closed = 0
        self._connected = threading.Event()
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._connected.wait(_HANDSHAKE_MS / 1000):
            raise BindError("connect_failed", f"no connection to {self._endpoint}")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.linger = 0
            socket.rcvhwm = 1_000_000
            socket.subscribe(b"")
            monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            socket.connect(self._endpoint)
            if monitor.poll(_HANDSHAKE_MS):
                self._connected.set()
            socket.disable_monitor()
            monitor.close(linger=0)
            while not self._stopping.is_set():
                if socket.poll(_POLL_MS):
                    self._take(socket)
                self.cpu_ns = time.thread_time_ns()

    def _take(self, socket: zmq.Socket[bytes]) -> None:
        try:
            while True:
                topic, _, payload = socket.recv_multipart(zmq.NOBLOCK)
                self.arrivals.append(Arrival(time.monotonic_ns(), topic, payload))
                if topic.startswith((b"stream.", b"daemon.")):
                    with self._changed:
                        self._closed += topic.startswith(b"stream.") and _CLOSED in payload
                        self._changed.notify_all()
        except zmq.Again:
            return

    def wait_closed(self, streams: int, timeout_s: float) -> bool:
        """Wait until so many streams have been closed; return whether that came to pass."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed >= streams, timeout_s)

    def wait_stopped(self, timeout_s: float) -> bool:
        """Wait for the daemon's last event; return whether it came."""

        def stopped() -> bool:
            return any(a.topic == b"daemon.stopped" for a in reversed(self.arrivals[-100:]))

        with self._changed:
            return self._changed.wait_for(stopped, timeout_s)

    def events(self, kind: str) -> Iterator[tuple[int, Event]]:
        """Events of a type, with their arrival in monotonic ns."""
        prefix = kind.encode() + b"."
        for arrival in self.arrivals:
            if arrival.topic.startswith(prefix):
                yield arrival.at_ns, decode(arrival.payload)

    def counters(self) -> list[tuple[int, dict[str, int]]]:
        """The daemon's counters, each time that it told them, with their arrival."""
        return [
            (at_ns, event.counts)
            for at_ns, event in self.events("daemon")
            if isinstance(event, DaemonEvent)
        ]

    def types(self) -> dict[str, int]:
        """How many events of each type there were."""
        found: dict[str, int] = {}
        for arrival in self.arrivals:
            kind = arrival.topic.partition(b".")[0].decode()
            found[kind] = found.get(kind, 0) + 1
        return found
