"""Subscribers and askers that want too much, over real sockets."""

from __future__ import annotations

import json
import socket as sockets
from typing import Self

import pytest
import zmq
from structlog.testing import capture_logs

from serd.channel import Channel, Overflow, Waker
from serd.curve import CurveKeys, Door, Link
from serd.protocol.events import Event
from serd.protocol.replay import ReplayDone, ReplayError, ReplayRequest
from serd.sinks.publisher import Publisher, PublisherOptions
from serd.sinks.ring import EventRing
from serd.sinks.subscribers import MAX_NOTICE_BYTES, SubscriberLimits
from tests.fakes import FakeClock, wait_until
from tests.protocol import examples as make
from tests.security.zmtp import connected, is_cut_off, long_frame
from tests.sinks.harness import Context, ask

ENDPOINT = "tcp://127.0.0.1:*"


class Site:
    """A publisher with limits, and peers of it."""

    def __init__(self, context: Context, **limits: int) -> None:
        self.clock = FakeClock()
        waker = Waker()
        self.channel: Channel[Event] = Channel("events", 1000, Overflow.BLOCK, waker)
        self.publisher = Publisher(
            PublisherOptions((ENDPOINT,), (ENDPOINT,), linger_ms=0),
            self.channel,
            waker,
            self.clock,
            "run",
            EventRing(1000),
            context,
            limits=SubscriberLimits(**limits),
        )
        self.publisher.start()
        self.context = context

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.publisher.stop()

    def count(self, name: str) -> int:
        return self.publisher.counts()[name]

    def socket(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = self.context.socket(kind)
        socket.linger = 0
        socket.connect(endpoint)
        return socket

    def subscriber(self, *topics: bytes) -> zmq.Socket[bytes]:
        before = self.count("subscriptions") + self.count("subscriptions_refused")
        socket = self.socket(zmq.SUB, self.publisher.endpoints[0])
        for topic in topics:
            socket.setsockopt(zmq.SUBSCRIBE, topic)
        wait_until(
            lambda: self.count("subscriptions") + self.count("subscriptions_refused") > before,
            "a subscription",
        )
        return socket

    def still_publishes(self) -> None:
        """Whether somebody else is served as ever."""
        socket = self.subscriber(b"emotion.")
        self.channel.put(make.emotion("a"))
        assert socket.poll(20_000), "others get nothing"
        socket.close()


def test_with_more_topics_than_allowed_a_subscriber_is_cut_off(zmq_context: Context) -> None:
    with Site(zmq_context, subscriptions=100) as site, capture_logs() as logs:
        # Another address: what others may have does not depend on it.
        flood = zmq_context.socket(zmq.SUB)
        flood.setsockopt(zmq.RECONNECT_STOP, zmq.RECONNECT_STOP_CONN_REFUSED)
        for number in range(500):
            flood.setsockopt(zmq.SUBSCRIBE, b"emotion.%d" % number)
        port = site.publisher.endpoints[0].rpartition(":")[2]
        flood.connect(f"tcp://127.0.0.5:0;127.0.0.1:{port}")
        wait_until(lambda: site.count("subscriptions_refused"), "the refusal")
        site.still_publishes()
        flood.close(linger=0)
    told = [entry for entry in logs if entry["event"] == "subscriber.refused"]
    assert len(told) == 1
    assert (told[0]["peer"], told[0]["reason"]) == ("127.0.0.5", "subscriptions")


def test_topics_that_are_taken_back_count_no_more(zmq_context: Context) -> None:
    with Site(zmq_context, subscriptions=10) as site:
        socket = site.subscriber(b"first")
        for number in range(100):
            socket.setsockopt(zmq.SUBSCRIBE, b"%d" % number)
            wait_until(lambda: site.count("subscriptions") == number + 2, "it")  # noqa: B023
            socket.setsockopt(zmq.UNSUBSCRIBE, b"%d" % number)
            wait_until(lambda: site.count("unsubscriptions") == number + 1, "it")  # noqa: B023
        assert site.count("subscriptions_refused") == 0
        socket.close()


def test_topics_of_connections_that_ended_count_no_more(zmq_context: Context) -> None:
    with Site(zmq_context, subscriptions=10) as site:
        for _ in range(20):
            socket = site.subscriber(*(b"t%d" % number for number in range(8)))
            wait_until(lambda: site.count("subscriptions") % 8 == 0, "all topics")
            gone = site.count("unsubscriptions")
            socket.close()
            wait_until(lambda: site.count("unsubscriptions") >= gone + 8, "its end")  # noqa: B023
        assert site.count("subscriptions_refused") == 0


@pytest.mark.parametrize("size", [MAX_NOTICE_BYTES + 1, 1 << 16, 1 << 40])
def test_an_endless_topic_ends_its_connection(zmq_context: Context, size: int) -> None:
    with Site(zmq_context) as site, connected(site.publisher.endpoints[0], b"SUB") as flood:
        flood.sendall(long_frame(size))
        assert is_cut_off(flood)
        site.still_publishes()
        assert site.count("subscriptions") == 1


def test_messages_to_the_publisher_are_counted_and_nothing_else(zmq_context: Context) -> None:
    with Site(zmq_context) as site:
        socket = site.socket(zmq.XSUB, site.publisher.endpoints[0])
        for payload in (b"", b"\x02", b"\x01" * 900, b"\xff" * 900):
            socket.send(payload)
        wait_until(lambda: site.count("subscriptions") == 1, "what looks like a topic")
        site.still_publishes()
        socket.close()


def test_requests_beyond_the_rate_are_told_to_come_later(zmq_context: Context) -> None:
    with Site(zmq_context, replays_s=5) as site:
        asker = site.socket(zmq.DEALER, site.publisher.replay_endpoints[0])
        answers = [ask(asker, ReplayRequest())[1] for _ in range(8)]
        assert all(isinstance(answer, ReplayDone) for answer in answers[:5])
        assert all(
            isinstance(answer, ReplayError) and answer.code == "busy" for answer in answers[5:]
        )
        assert site.count("replay_requests_refused") == 3
        site.clock.advance(0.5)
        assert isinstance(ask(asker, ReplayRequest())[1], ReplayDone)
        asker.close()


def test_a_flood_of_requests_and_nobody_to_read_the_answers(zmq_context: Context) -> None:
    with Site(zmq_context) as site:
        for number in range(200):
            site.channel.put(make.emotion(f"s{number}"))
        wait_until(lambda: site.count("events_published") == 200, "the events")
        flood = site.socket(zmq.DEALER, site.publisher.replay_endpoints[0])
        flood.rcvhwm = 1
        request = json.dumps({"after": 0}).encode()
        for _ in range(2000):
            try:
                flood.send(request, zmq.NOBLOCK)
            except zmq.Again:
                break
        site.still_publishes()
        asker = site.socket(zmq.DEALER, site.publisher.replay_endpoints[0])
        assert isinstance(ask(asker, ReplayRequest())[1], ReplayDone)
        asker.close()
        flood.close()


@pytest.mark.parametrize(
    "request_parts",
    [
        [b""],
        [b"{}", b"{}"],
        [b"[" * 8000],
        [b'{"after": -1}'],
        [b'{"after": 1e400}'],
        [b'{"' + b"k" * 8000 + b'": 1}'],
        [b"\xff\xfe"],
    ],
)
def test_what_a_refused_request_is_told_is_short_and_its_own(
    zmq_context: Context, request_parts: list[bytes]
) -> None:
    with Site(zmq_context) as site:
        asker = site.socket(zmq.DEALER, site.publisher.replay_endpoints[0])
        _, answer = ask(asker, request_parts)
        assert isinstance(answer, ReplayError)
        assert answer.code == "bad_request"
        assert "/" not in answer.message
        assert len(answer.message) < 400
        asker.close()


def test_a_request_larger_than_any_ends_its_connection_alone(zmq_context: Context) -> None:
    with Site(zmq_context) as site:
        with connected(site.publisher.replay_endpoints[0], b"DEALER") as flood:
            flood.sendall(long_frame(1 << 24))
            assert is_cut_off(flood)
        asker = site.socket(zmq.DEALER, site.publisher.replay_endpoints[0])
        assert isinstance(ask(asker, ReplayRequest())[1], ReplayDone)
        assert site.count("replay_requests") == 1
        asker.close()


def test_garbage_on_its_ports_stops_nothing(zmq_context: Context) -> None:
    with Site(zmq_context) as site:
        for endpoint in (*site.publisher.endpoints, *site.publisher.replay_endpoints):
            port = int(endpoint.rpartition(":")[2])
            for sent in (b"GET / HTTP/1.0\r\n\r\n", bytes(4096), b"\xff" * 4096):
                with sockets.create_connection(("127.0.0.1", port)) as raw:
                    raw.sendall(sent)
        site.still_publishes()


def test_without_a_handler_for_keys_nobody_gets_in(zmq_context: Context) -> None:
    server, client = CurveKeys.generate(), CurveKeys.generate()
    with zmq_context.socket(zmq.PULL) as pull, zmq_context.socket(zmq.PUSH) as push:
        Door(server).serve(pull, "send")
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        monitor = push.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        push.linger = 0
        Link(client, server.public).reach(push)
        push.connect(f"tcp://127.0.0.1:{port}")
        push.send(b"audio")
        assert monitor.poll(20_000), "it stayed connected"
        assert not pull.poll(0)
        push.disable_monitor()
        monitor.close()
