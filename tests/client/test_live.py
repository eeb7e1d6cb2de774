"""The live socket: what it receives, and when it has been disconnected meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from serd.client.live import LiveSocket
from serd.errors import BindError
from tests.fakes import wait_until

Context = zmq.Context[zmq.Socket[bytes]]
PATIENCE_MS = 20_000


@pytest.fixture
def live(zmq_context: Context) -> Iterator[LiveSocket]:
    live = LiveSocket(zmq_context)
    yield live
    live.close()
    live.close()


@contextmanager
def _publisher(endpoint: str = "tcp://127.0.0.1:*") -> Iterator[zmq.Socket[bytes]]:
    # With a context of its own, which ends with it, so that its port is free afterwards.
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.linger = 0
        publisher.bind(endpoint)
        yield publisher


def _endpoint(publisher: zmq.Socket[bytes]) -> str:
    return publisher.getsockopt_string(zmq.LAST_ENDPOINT)


def _wait_subscribed(live: LiveSocket, publisher: zmq.Socket[bytes]) -> None:
    def subscribed() -> int:
        # Who reconnects subscribes anew when it is asked for something.
        live.wait(5)
        return publisher.poll(5)

    wait_until(subscribed, "the subscription")
    assert publisher.recv() == b"\x01"


def test_it_receives_what_it_subscribed_to(live: LiveSocket) -> None:
    with _publisher() as publisher:
        live.connect(_endpoint(publisher), ["a", "b"], 10, False, None)
        topics = [publisher.recv(), publisher.recv()]
        assert topics == [b"\x01a", b"\x01b"]
        with pytest.raises(zmq.Again):
            live.receive(zmq.DONTWAIT)
        for topic in (b"a", b"c", b"b"):
            publisher.send_multipart([topic, b"payload"])
        live.wait(PATIENCE_MS)
        assert [live.receive()[0], live.receive()[0]] == [b"a", b"b"]


def test_a_reconnection_is_told_once_and_the_first_connection_is_none(live: LiveSocket) -> None:
    with _publisher() as publisher:
        endpoint = _endpoint(publisher)
        live.connect(endpoint, [""], 10, True, None)
        assert publisher.recv() == b"\x01"
        live.wait(PATIENCE_MS)
        assert not live.has_reconnected()
    with _publisher(endpoint) as again:
        _wait_subscribed(live, again)
        wait_until(live.has_reconnected, "the reconnection")
        assert not live.has_reconnected()


def test_without_a_watch_no_reconnection_is_seen(live: LiveSocket) -> None:
    with _publisher() as publisher:
        endpoint = _endpoint(publisher)
        live.connect(endpoint, [""], 10, False, None)
        assert publisher.recv() == b"\x01"
    with _publisher(endpoint) as again:
        _wait_subscribed(live, again)
        assert not live.has_reconnected()


def test_an_endpoint_that_cannot_be_understood_is_named(live: LiveSocket) -> None:
    with pytest.raises(BindError, match="carrier-pigeon"):
        live.connect("carrier-pigeon", [""], 10, True, None)
