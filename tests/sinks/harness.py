"""A publisher on loopback and the sockets to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import zmq

from serd.channel import Channel, Overflow, Waker
from serd.protocol.events import Event
from serd.protocol.replay import (
    ReplayDone,
    ReplayError,
    ReplayRequest,
    StoredEvent,
    decode_reply,
    encode_request,
    unpack_cursor,
)
from serd.sinks.publisher import Publisher, PublisherOptions
from serd.sinks.ring import EventRing
from tests.fakes import FakeClock, wait_until

Context = zmq.Context[zmq.Socket[bytes]]
RUN = "0123456789abcdef"
PATIENCE_MS = 20_000


@dataclass
class Running:
    """A publisher that runs, and what feeds it."""

    publisher: Publisher
    channel: Channel[Event]
    context: Context
    sockets: list[zmq.Socket[bytes]] = field(default_factory=list)

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        """A socket that is closed with the publisher."""
        socket = self.context.socket(kind)
        self.sockets.append(socket)
        return socket

    def dealer(self) -> zmq.Socket[bytes]:
        """A socket to ask for past events."""
        socket = self.socket(zmq.DEALER)
        socket.connect(self.replay)
        return socket

    def subscribe(self, *topics: bytes) -> zmq.Socket[bytes]:
        """A SUB socket whose subscriptions the publisher has taken up."""
        before = self.subscriptions()
        socket = self.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, 0)
        for topic in topics:
            socket.setsockopt(zmq.SUBSCRIBE, topic)
        socket.connect(self.endpoint)
        wait_until(lambda: self.subscriptions() == before + len(topics), "the subscriptions")
        return socket

    @property
    def endpoint(self) -> str:
        return self.publisher.endpoints[0]

    @property
    def replay(self) -> str:
        return self.publisher.replay_endpoints[0]

    def publish(self, *events: Event) -> None:
        """Publish and wait until it is done."""
        target = self.publisher.last_cursor + len(events)
        for event in events:
            self.channel.put(event)
        wait_until(lambda: self.publisher.last_cursor >= target, "the events to be published")

    def subscriptions(self) -> int:
        return self.publisher.counts()["subscriptions"]


@contextmanager
def running(
    context: Context,
    *,
    run_id: str = RUN,
    bind: str = "tcp://127.0.0.1:*",
    replay_bind: str = "tcp://127.0.0.1:*",
    keep: int = 1000,
    send_hwm: int = 100_000,
    linger_ms: int = 0,
) -> Iterator[Running]:
    waker = Waker()
    channel: Channel[Event] = Channel("events", 100_000, Overflow.BLOCK, waker)
    options = PublisherOptions((bind,), (replay_bind,), send_hwm=send_hwm, linger_ms=linger_ms)
    # With a context of its own, which ends with it, so that its ports are free afterwards.
    publisher = Publisher(options, channel, waker, FakeClock(), run_id, EventRing(keep))
    publisher.start()
    daemon = Running(publisher, channel, context)
    try:
        yield daemon
    finally:
        for socket in daemon.sockets:
            socket.close(linger=0)
        assert publisher.stop(20.0)
        waker.close()


def receive(socket: zmq.Socket[bytes]) -> StoredEvent:
    assert socket.poll(PATIENCE_MS), "no event came"
    topic, cursor, payload = socket.recv_multipart()
    return StoredEvent(unpack_cursor(cursor), topic, payload)


def receive_until(socket: zmq.Socket[bytes], cursor: int) -> list[int]:
    """Cursors of what arrives up to the one given, which must come."""
    found = [receive(socket).cursor]
    while found[-1] != cursor:
        found.append(receive(socket).cursor)
    return found


def ask(
    socket: zmq.Socket[bytes], request: ReplayRequest | list[bytes]
) -> tuple[list[StoredEvent], ReplayDone | ReplayError]:
    """The events and the end of an answer."""
    socket.send_multipart(request if isinstance(request, list) else encode_request(request))
    events: list[StoredEvent] = []
    while True:
        assert socket.poll(PATIENCE_MS), "no answer came"
        reply = decode_reply(socket.recv_multipart())
        if not isinstance(reply, StoredEvent):
            return events, reply
        events.append(reply)
