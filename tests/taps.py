"""Taps and subscribers for end-to-end tests, on plain sockets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import zmq

from serd.protocol.tap import Metadata
from serd.protocol.writer import TapWriter
from serd.types import Encoding, Int16Array

Json = dict[str, Any]


class Collector:
    """Subscribes in a thread of its own and keeps every event."""

    def __init__(self, endpoint: str, topic: str = "") -> None:
        self.events: list[Json] = []
        self.cursors: list[int] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(endpoint, topic), daemon=True)
        self._thread.start()
        assert self._connected.wait(20), f"no connection to {endpoint}"

    def _run(self, endpoint: str, topic: str) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.rcvhwm = 0
            socket.linger = 0
            socket.subscribe(topic)
            monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            socket.connect(endpoint)
            if monitor.poll(20_000):
                self._connected.set()
            socket.disable_monitor()
            monitor.close(linger=0)
            while not self._stop.is_set():
                if not socket.poll(50):
                    continue
                _, cursor, payload = socket.recv_multipart()
                with self._changed:
                    self.cursors.append(int.from_bytes(cursor, "big"))
                    self.events.append(json.loads(payload))
                    self._changed.notify_all()

    @property
    def gapless(self) -> bool:
        """Whether cursors have come one by one so far."""
        with self._changed:
            cursors = self.cursors.copy()
        return all(later == earlier + 1 for earlier, later in pairwise(cursors))

    def wait_closed(self, streams: Iterable[str], timeout_s: float = 120.0) -> None:
        """Wait until each of the streams has been closed."""
        wanted = set(streams)
        deadline = time.monotonic() + timeout_s
        seen = 0
        with self._changed:
            while True:
                for event in self.events[seen:]:
                    if event["type"] == "stream" and event["state"] == "closed":
                        wanted.discard(event["stream"])
                seen = len(self.events)
                if not wanted:
                    return
                left = deadline - time.monotonic()
                # With no event at all it is the subscription, or the daemon, that does nothing.
                assert left > 0, (
                    f"never closed: {sorted(wanted)[:5]} of {len(wanted)}, "
                    f"{seen} events, the last of them {self.events[-1:]}"
                )
                self._changed.wait(left)

    def wait_for(self, kind: str, state: str, timeout_s: float = 30.0) -> Json:
        """The first event of a type and state, once it is there."""

        def found() -> Json | None:
            wanted = (e for e in self.events if e["type"] == kind and e["state"] == state)
            return next(wanted, None)

        with self._changed:
            assert self._changed.wait_for(found, timeout_s), f"no {kind} event {state}"
        event = found()
        assert event is not None
        return event

    def of_type(self, kind: str) -> list[Json]:
        return [event for event in self.events if event["type"] == kind]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)


def blocks(
    stream: str,
    samples: Int16Array,
    rate_hz: int,
    block_ms: float,
    encoding: Encoding = Encoding.S16LE,
    metadata: Metadata | None = None,
) -> list[list[bytes]]:
    """Every message of a tap that plays a recording, from its start to its end."""
    writer = TapWriter(stream, rate_hz, encoding, 1)
    block = round(rate_hz * block_ms / 1000)
    first = writer.start(metadata)
    audio = [
        writer.audio(samples[start : start + block].reshape(-1, 1))
        for start in range(0, len(samples), block)
    ]
    return [list(message) for message in (first, *audio, writer.end())]


class Push:
    """A PUSH socket that waits until everything has been taken."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.PUSH)
        self.socket.connect(endpoint)

    def send(self, messages: Iterable[list[bytes]]) -> None:
        for message in messages:
            self.socket.send_multipart(message)

    def close(self) -> None:
        self.socket.close(linger=30_000)
        self._context.term()
