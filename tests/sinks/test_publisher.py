"""The publisher over real sockets on loopback."""

from __future__ import annotations

import os
import threading

import pytest
import zmq

from serd.channel import Channel, Overflow, Waker
from serd.errors import BindError
from serd.protocol.events import DaemonEvent, EmotionEvent, Event, ShadowEvent, decode
from serd.protocol.replay import MAX_LIMIT, ReplayDone, ReplayError, ReplayRequest
from serd.sinks.publisher import Publisher, PublisherOptions
from serd.sinks.ring import EventRing
from tests.fakes import FakeClock, wait_until
from tests.protocol import examples as make
from tests.sinks.harness import (
    RUN,
    Context,
    ask,
    receive,
    receive_until,
    running,
)


def test_a_subscriber_gets_topic_cursor_and_json(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        everything = daemon.subscribe(b"")
        daemon.publish(make.stream("a"), make.emotion("a"))
        first, second = receive(everything), receive(everything)
        assert (first.topic, first.cursor) == (b"stream.a", 1)
        assert (second.topic, second.cursor) == (b"emotion.a", 2)
        event = decode(second.payload)
        assert isinstance(event, EmotionEvent)
        assert (event.id, event.cursor, event.seq) == (f"{RUN}-2", 2, 1)


def test_topics_are_prefixes(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        emotions = daemon.subscribe(b"emotion.")
        one_stream = daemon.subscribe(b"emotion.b")
        daemon.publish(make.speech("b"), make.emotion("a"), make.emotion("b"))
        assert receive_until(emotions, 3) == [2, 3]
        assert receive_until(one_stream, 3) == [3]


def test_a_late_subscriber_alone_gets_the_newest_event_it_subscribes_to(
    zmq_context: Context,
) -> None:
    with running(zmq_context) as daemon:
        early = daemon.subscribe(b"emotion.")
        daemon.publish(make.emotion("a"), make.emotion("b"), make.speech("a"), make.emotion("a"))
        late = daemon.subscribe(b"emotion.b")
        later = daemon.subscribe(b"")
        daemon.publish(make.emotion("b"))
        assert receive_until(early, 5) == [1, 2, 4, 5]
        assert receive_until(late, 5) == [2, 5]
        assert receive_until(later, 5) == [4, 5]


def test_each_subscription_of_a_subscriber_brings_its_newest_event(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        streams = [f"s{n}" for n in range(200)]
        daemon.publish(*(make.emotion(name) for name in streams))
        other = daemon.subscribe(b"emotion.s7")
        late = daemon.subscribe(*(f"emotion.{name}".encode() for name in streams))
        daemon.publish(make.emotion("end"), make.emotion("s7"))
        # The prefix s7 also begins s70 to s79.
        assert receive_until(other, 202) == [80, 202]
        assert receive(late).topic.startswith(b"emotion.s")
        topics = {receive(late).topic for _ in range(199)}
        assert len(topics) > 150
        assert receive_until(late, 202) == [202]


def test_after_a_last_value_events_go_to_everyone_again(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        first = daemon.subscribe(b"")
        for round_ in range(5):
            daemon.publish(make.emotion("a"))
            daemon.subscribe(b"emotion.a", b"speech.", b"")
            daemon.publish(make.emotion("a"), make.emotion("b"))
            assert receive_until(first, 3 * round_ + 3) == [3 * round_ + n for n in (1, 2, 3)]


def test_overlapping_prefixes_bring_an_event_once_and_can_be_given_up(
    zmq_context: Context,
) -> None:
    with running(zmq_context) as daemon:
        # Unlike SUB, this socket shows everything that is sent to it.
        socket = daemon.socket(zmq.XSUB)
        socket.connect(daemon.endpoint)
        socket.send(b"\x01emotion.")
        socket.send(b"\x01emotion.a")
        wait_until(lambda: daemon.subscriptions() == 2, "the subscriptions")
        bystander = daemon.subscribe(b"emotion.")
        daemon.publish(make.emotion("a"))
        socket.send(b"\x00emotion.")
        wait_until(lambda: daemon.publisher.counts()["unsubscriptions"] == 1, "the unsubscription")
        daemon.publish(make.emotion("b"), make.emotion("a"))
        assert receive_until(socket, 3) == [1, 3]
        assert receive_until(bystander, 3) == [1, 2, 3]


def test_a_subscriber_that_leaves_takes_nothing_from_the_others(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        stays = daemon.subscribe(b"emotion.")
        leaves = daemon.subscribe(b"", b"emotion.a")
        daemon.publish(make.emotion("a"))
        leaves.close(linger=0)
        wait_until(
            lambda: daemon.publisher.counts()["unsubscriptions"] == 2, "the subscriber to leave"
        )
        daemon.publish(make.emotion("a"), make.emotion("a"))
        assert receive_until(stays, 3) == [1, 2, 3]


def test_a_closed_stream_has_no_last_value(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        daemon.publish(make.stream("a"), make.emotion("a"), make.stream("a", "closed"))
        late = daemon.subscribe(b"emotion.a", b"stream.a")
        daemon.publish(make.emotion("a"))
        assert receive_until(late, 4) == [4]


def test_a_subscriber_that_does_not_read_delays_and_loses_nothing_for_others(
    zmq_context: Context,
) -> None:
    with running(zmq_context, send_hwm=1000) as daemon:
        # Small buffers, so that the kernel cannot hide the queue that overflows.
        slow = daemon.socket(zmq.SUB)
        slow.setsockopt(zmq.RCVHWM, 1)
        slow.setsockopt(zmq.RCVBUF, 4096)
        slow.setsockopt(zmq.SUBSCRIBE, b"")
        slow.connect(daemon.endpoint)
        wait_until(lambda: daemon.subscriptions() == 1, "the slow subscriber")
        fast = daemon.subscribe(b"")
        total = 10_000
        for cursor in range(500, total + 1, 500):
            daemon.publish(*(make.emotion("a", labels={"k": "x" * 200}) for _ in range(500)))
            assert receive_until(fast, cursor) == list(range(cursor - 499, cursor + 1))
        daemon.publish(make.daemon())
        assert receive(fast).cursor == total + 1
        assert 0 < daemon.publisher.counts()["subscriber_overruns"] < 100
        seen = 0
        while slow.poll(200):
            slow.recv_multipart()
            seen += 1
        assert 0 < seen < total


def test_a_subscriber_that_catches_up_and_falls_behind_again_is_counted_again(
    zmq_context: Context,
) -> None:
    with running(zmq_context, send_hwm=100) as daemon:
        slow = daemon.socket(zmq.SUB)
        slow.setsockopt(zmq.RCVHWM, 1)
        slow.setsockopt(zmq.RCVBUF, 4096)
        slow.setsockopt(zmq.SUBSCRIBE, b"")
        slow.connect(daemon.endpoint)
        wait_until(lambda: daemon.subscriptions() == 1, "the subscriber")
        for _ in range(2):
            before = daemon.publisher.counts()["subscriber_overruns"]
            # More than its queue and the buffers of both kernels' ends can hold.
            daemon.publish(*(make.emotion("a", labels={"k": "x" * 4000}) for _ in range(3000)))
            assert daemon.publisher.counts()["subscriber_overruns"] > before
            seen = 0
            cursor = 0
            while cursor < daemon.publisher.last_cursor:
                if not slow.poll(100):
                    daemon.publish(make.emotion("a"))
                cursor = receive(slow).cursor
                seen += 1
            assert seen < 3000


def test_a_last_value_for_a_full_queue_goes_to_nobody_else(zmq_context: Context) -> None:
    with running(zmq_context, send_hwm=100) as daemon:
        bystander = daemon.subscribe(b"")
        full = daemon.socket(zmq.XSUB)
        full.setsockopt(zmq.RCVHWM, 1)
        full.setsockopt(zmq.RCVBUF, 4096)
        full.connect(daemon.endpoint)
        full.send(b"\x01")
        wait_until(lambda: daemon.subscriptions() == 2, "the subscription")
        while not daemon.publisher.counts()["subscriber_overruns"]:
            daemon.publish(make.emotion("a", labels={"k": "x" * 2000}))
            receive(bystander)
        full.send(b"\x01emotion.a")
        wait_until(lambda: daemon.subscriptions() == 3, "the second subscription")
        daemon.publish(make.emotion("a"))
        assert receive(bystander).cursor == daemon.publisher.last_cursor


def test_replay_brings_what_was_published_byte_for_byte(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        live = daemon.subscribe(b"")
        daemon.publish(*(make.emotion(name) for name in "abcab"))
        published = [receive(live) for _ in range(5)]
        socket = daemon.dealer()
        events, done = ask(socket, ReplayRequest())
        assert events == published
        assert done == ReplayDone(run_id=RUN, after=5, more=False, oldest=1, newest=5, expired=0)
        assert ask(socket, ReplayRequest(after=2, topic="emotion.a"))[0] == [published[3]]
        assert ask(socket, ReplayRequest(after=1, before=4))[0] == published[1:3]
        events, done = ask(socket, ReplayRequest(limit=2))
        assert events == published[:2]
        assert isinstance(done, ReplayDone)
        assert (done.after, done.more) == (2, True)
        assert [e.cursor for e in ask(socket, ReplayRequest(last=True))[0]] == [3, 4, 5]


def test_replay_tells_what_is_no_longer_kept(zmq_context: Context) -> None:
    with running(zmq_context, keep=10) as daemon:
        daemon.publish(*(make.emotion("a") for _ in range(25)))
        socket = daemon.dealer()
        events, done = ask(socket, ReplayRequest(after=3))
        assert [event.cursor for event in events] == list(range(16, 26))
        assert isinstance(done, ReplayDone)
        assert (done.expired, done.oldest, done.newest) == (12, 16, 25)


def test_one_request_brings_a_limited_number_whatever_it_asks_for(zmq_context: Context) -> None:
    with running(zmq_context, keep=MAX_LIMIT + 5) as daemon:
        daemon.publish(*(make.emotion("a") for _ in range(MAX_LIMIT + 5)))
        socket = daemon.dealer()
        events, done = ask(socket, ReplayRequest(limit=10**6))
        assert len(events) == MAX_LIMIT
        assert isinstance(done, ReplayDone)
        assert done.more
        assert len(ask(socket, ReplayRequest(after=done.after))[0]) == 5


@pytest.mark.parametrize("parts", [[b"{"], [b""], [b"{}", b"{}"], [b'{"limit":0}'], [b"\0" * 100]])
def test_malformed_requests_are_answered_and_counted(
    zmq_context: Context, parts: list[bytes]
) -> None:
    with running(zmq_context) as daemon:
        socket = daemon.dealer()
        _, error = ask(socket, parts)
        assert isinstance(error, ReplayError)
        assert error.code == "bad_request"
        assert daemon.publisher.counts()["replay_requests_bad"] == 1
        assert isinstance(ask(socket, ReplayRequest())[1], ReplayDone)


def test_whatever_subscribers_send_is_ignored(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        socket = daemon.socket(zmq.XSUB)
        socket.connect(daemon.endpoint)
        socket.send(b"hello")
        socket.send_multipart([b"", b"x", b"\x02"])
        socket.send(b"\x00never subscribed")
        socket.send(b"\x01")
        wait_until(lambda: daemon.subscriptions() == 1, "the subscription")
        daemon.publish(make.emotion("a"))
        assert receive(socket).cursor == 1
        assert daemon.publisher.counts()["subscriber_messages_ignored"] >= 1


def test_an_event_that_cannot_be_written_is_counted_and_the_next_one_is_published(
    zmq_context: Context,
) -> None:
    with running(zmq_context) as daemon:
        socket = daemon.subscribe(b"")
        daemon.publish(make.emotion("a"), make.emotion("a", call_id="\ud800"), make.emotion("a"))
        assert receive_until(socket, 3) == [1, 3]
        assert daemon.publisher.counts()["events_unencodable"] == 1


def test_stop_publishes_what_is_in_the_channel(zmq_context: Context) -> None:
    with running(zmq_context, linger_ms=20_000) as daemon:
        socket = daemon.subscribe(b"")
        for _ in range(500):
            daemon.channel.put(make.emotion("a"))
        daemon.channel.put(make.daemon("stopped"))
        assert daemon.publisher.stop(20.0)
        assert not daemon.publisher.alive
        assert receive_until(socket, 501) == list(range(1, 502))


def test_stopping_at_once_after_the_start_never_hangs(zmq_context: Context) -> None:
    for _ in range(200):
        with running(zmq_context):
            pass


def test_many_threads_may_publish(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        socket = daemon.subscribe(b"")

        def produce(name: str) -> None:
            for _ in range(200):
                daemon.channel.put(make.emotion(name))

        threads = [threading.Thread(target=produce, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        events = [decode(receive(socket).payload) for _ in range(800)]
        for thread in threads:
            thread.join()
        assert [event.cursor for event in events] == list(range(1, 801))
        for name in "abcd":
            of_stream = [
                e
                for e in events
                if not isinstance(e, DaemonEvent | ShadowEvent) and e.stream == name
            ]
            assert [event.seq for event in of_stream] == list(range(200))


def make_publisher(*bind: str, replay: tuple[str, ...] = ()) -> Publisher:
    waker = Waker()
    channel: Channel[Event] = Channel("events", 10, Overflow.BLOCK, waker)
    return Publisher(
        PublisherOptions(bind, replay), channel, waker, FakeClock(), RUN, EventRing(10)
    )


def test_an_endpoint_in_use_is_named(zmq_context: Context) -> None:
    socket = zmq_context.socket(zmq.PUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    endpoint = f"tcp://127.0.0.1:{port}"
    for publisher in (make_publisher(endpoint), make_publisher(replay=(endpoint,))):
        with pytest.raises(BindError, match=endpoint) as caught:
            publisher.start()
        assert caught.value.code == "address_in_use"
        assert caught.value.exit_code == os.EX_OSERR
        assert not publisher.alive


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1", "tcp://203.0.113.1:5556"])
def test_an_endpoint_that_cannot_be_bound_is_named(endpoint: str) -> None:
    with pytest.raises(BindError, match=endpoint):
        make_publisher(endpoint).start()


def test_several_endpoints_are_bound_and_their_ports_told() -> None:
    publisher = make_publisher("tcp://127.0.0.1:*", "inproc://events")
    publisher.start()
    try:
        assert publisher.endpoints[0].rpartition(":")[2].isdigit()
        assert publisher.endpoints[1] == "inproc://events"
    finally:
        assert publisher.stop()


def test_a_publisher_that_never_started_can_be_stopped() -> None:
    assert make_publisher("tcp://127.0.0.1:*").stop()
