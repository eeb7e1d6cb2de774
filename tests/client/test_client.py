"""The subscriber over real sockets on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import zmq

from serd.client import Item, Missed, Restarted, Subscriber
from serd.errors import BindError
from serd.protocol.events import DaemonEvent, EmotionEvent, Event, SpeechEvent
from serd.protocol.replay import StoredEvent, pack_cursor
from tests.fakes import wait_until
from tests.protocol import examples as make
from tests.sinks.harness import PATIENCE_MS, RUN, Context, Running, receive, running

PATIENCE_S = PATIENCE_MS / 1000
OTHER_RUN = "fedcba9876543210"


class Lossy:
    """Stands between a publisher and a subscriber and passes on what it is told to."""

    def __init__(self, daemon: Running) -> None:
        self.daemon = daemon
        self._in = daemon.subscribe(b"")
        self._out = daemon.socket(zmq.XPUB)
        self.endpoint = f"tcp://127.0.0.1:{self._out.bind_to_random_port('tcp://127.0.0.1')}"
        self.events: dict[int, StoredEvent] = {}

    def cut_off(self) -> None:
        """Break the connection, and be there again."""
        self._out.close(linger=0)
        self._out = self.daemon.socket(zmq.XPUB)

        def bound() -> bool:
            try:
                self._out.bind(self.endpoint)
            except zmq.ZMQError:
                return False
            return True

        wait_until(bound, "the port to be free again")

    def has_subscription(self) -> bool:
        return bool(self._out.poll(0))

    def await_subscriptions(self, number: int) -> None:
        for _ in range(number):
            assert self._out.poll(PATIENCE_MS), "nobody subscribed"
            self._out.recv()

    def publish(self, *events: Event) -> None:
        """Publish; nothing is passed on yet."""
        self.daemon.publish(*events)
        for _ in events:
            event = receive(self._in)
            self.events[event.cursor] = event

    def pass_on(self, *cursors: int) -> None:
        for cursor in cursors:
            event = self.events[cursor]
            self.send(event.topic, pack_cursor(cursor), event.payload)

    def send(self, *parts: bytes) -> None:
        self._out.send_multipart(parts)


@contextmanager
def lossy(context: Context, *, keep: int = 1000) -> Iterator[Lossy]:
    with running(context, keep=keep) as daemon:
        yield Lossy(daemon)


def take(subscriber: Subscriber, number: int) -> list[Item]:
    items = [subscriber.receive(PATIENCE_S) for _ in range(number)]
    assert None not in items, f"only {items} came"
    return [item for item in items if item is not None]


def receive_while(subscriber: Subscriber, *, until: Callable[[], bool]) -> list[Item]:
    """What a subscriber has received by the time that something has come to pass."""
    items: list[Item] = []

    def passed() -> bool:
        item = subscriber.receive(0)
        if item is not None:
            items.append(item)
        return until()

    wait_until(passed, "what the subscriber brings about")
    return items


def cursors(items: Sequence[Item]) -> list[int]:
    return [item.cursor for item in items if not isinstance(item, Missed | Restarted)]


def test_events_are_typed_and_in_order(zmq_context: Context) -> None:
    with (
        running(zmq_context) as daemon,
        Subscriber(daemon.endpoint, context=zmq_context) as subscriber,
    ):
        daemon.publish(make.daemon("ready"))
        assert isinstance(subscriber.receive(PATIENCE_S), DaemonEvent)
        daemon.publish(make.speech(), make.emotion())
        speech, emotion = take(subscriber, 2)
        assert isinstance(speech, SpeechEvent)
        assert isinstance(emotion, EmotionEvent)
        assert emotion.label == "angry"
        assert subscriber.last_id == f"{RUN}-3" == emotion.id


def test_iteration_ends_after_the_timeout(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        daemon.publish(make.emotion())
        with Subscriber(daemon.endpoint, timeout_s=0.5, context=zmq_context) as subscriber:
            assert cursors(list(subscriber)) == [1]
            assert subscriber.receive(0) is None


def test_a_context_of_its_own_ends_with_the_subscriber() -> None:
    with Subscriber("tcp://127.0.0.1:1") as subscriber:
        assert subscriber.receive(0) is None
        assert subscriber.last_id is None
    subscriber.close()


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1:port"])
def test_endpoints_that_cannot_be_understood_are_named(endpoint: str) -> None:
    with pytest.raises(BindError, match=endpoint):
        Subscriber(endpoint)
    with pytest.raises(BindError, match=endpoint):
        Subscriber("tcp://127.0.0.1:1", replay=endpoint)


def test_what_needs_replay_says_so() -> None:
    with pytest.raises(ValueError, match="replay"):
        Subscriber("tcp://127.0.0.1:1", after=0)
    with pytest.raises(ValueError, match="replay"):
        Subscriber("tcp://127.0.0.1:1", last_values=True)
    with pytest.raises(ValueError, match="not the id"):
        Subscriber("tcp://127.0.0.1:1", replay="tcp://127.0.0.1:2", after="soon")


def test_a_subscriber_to_everything_sees_a_gap_in_the_cursor(zmq_context: Context) -> None:
    with (
        lossy(zmq_context) as between,
        Subscriber(between.endpoint, context=zmq_context) as subscriber,
    ):
        between.await_subscriptions(1)
        between.publish(*(make.emotion(name) for name in "abcabc"))
        between.pass_on(2, 5, 6)
        first, missed, *rest = take(subscriber, 4)
        assert cursors([first]) == [2]
        assert missed == Missed(events=2, stream=None, after=2, before=5)
        assert cursors(rest) == [5, 6]


ALL_TYPES = [f"{kind}.a" for kind in ("stream", "speech", "emotion", "utterance", "gap")]


def test_a_subscriber_to_all_types_of_a_stream_sees_a_gap_in_its_seq(
    zmq_context: Context,
) -> None:
    with (
        lossy(zmq_context) as between,
        Subscriber(between.endpoint, ALL_TYPES, context=zmq_context) as subscriber,
    ):
        between.await_subscriptions(5)
        names = "aabaaba"
        between.publish(*(make.emotion(name) for name in names))
        between.pass_on(1, 2, 5, 7)
        items = take(subscriber, 5)
        assert cursors(items) == [1, 2, 5, 7]
        assert items[2] == Missed(events=1, stream="a", after=2, before=5)


def test_a_subscriber_to_some_types_takes_no_other_type_for_a_loss(zmq_context: Context) -> None:
    with (
        lossy(zmq_context) as between,
        Subscriber(between.endpoint, ["emotion."], context=zmq_context) as subscriber,
    ):
        between.await_subscriptions(1)
        between.publish(make.emotion("a"), make.speech("a"), make.emotion("a"))
        between.pass_on(1, 3)
        assert cursors(take(subscriber, 2)) == [1, 3]


def test_a_stream_that_closes_and_opens_again_is_no_gap(zmq_context: Context) -> None:
    with (
        running(zmq_context) as daemon,
        Subscriber(daemon.endpoint, ALL_TYPES, context=zmq_context) as subscriber,
    ):
        wait_until(lambda: daemon.subscriptions() == len(ALL_TYPES), "the subscriptions")
        for cursor in (1, 5):
            daemon.publish(
                make.stream("a"),
                make.stream("b"),
                make.emotion("a"),
                make.stream("a", "closed"),
            )
            assert cursors(take(subscriber, 3)) == [cursor, cursor + 2, cursor + 3]


def test_missed_events_are_fetched_in_order_and_none_twice(zmq_context: Context) -> None:
    with (
        lossy(zmq_context) as between,
        Subscriber(
            between.endpoint, replay=between.daemon.replay, context=zmq_context
        ) as subscriber,
    ):
        between.await_subscriptions(1)
        between.publish(*(make.emotion(name) for name in "abcdefgh"))
        between.pass_on(1, 5, 3, 5, 4, 8)
        assert cursors(take(subscriber, 8)) == list(range(1, 9))
        between.publish(make.emotion("a"))
        between.pass_on(9)
        assert cursors(take(subscriber, 1)) == [9]


def test_only_what_is_subscribed_to_is_fetched(zmq_context: Context) -> None:
    with (
        lossy(zmq_context) as between,
        Subscriber(
            between.endpoint,
            ["emotion.", "emotion.a", "speech.b"],
            replay=between.daemon.replay,
            context=zmq_context,
        ) as subscriber,
    ):
        between.await_subscriptions(3)
        between.publish(
            make.emotion("a"),
            make.speech("a"),
            make.emotion("a"),
            make.speech("b"),
            make.daemon(),
            make.emotion("a"),
        )
        between.pass_on(1, 6)
        assert cursors(take(subscriber, 4)) == [1, 3, 4, 6]


@contextmanager
def filtered_and_cut_off(zmq_context: Context) -> Iterator[tuple[Lossy, Subscriber]]:
    """A subscriber to a type of events that has had the first of six when it is cut off."""
    with (
        lossy(zmq_context) as between,
        Subscriber(
            between.endpoint, ["emotion."], replay=between.daemon.replay, context=zmq_context
        ) as subscriber,
    ):
        between.await_subscriptions(1)
        between.publish(*(make.emotion(name) for name in "abcade"))
        between.pass_on(1)
        assert cursors(take(subscriber, 1)) == [1]
        between.cut_off()
        yield between, subscriber


def test_a_filtered_subscriber_asks_after_a_reconnection(zmq_context: Context) -> None:
    with filtered_and_cut_off(zmq_context) as (between, subscriber):
        # A SUB socket subscribes anew when its program next looks at it. The subscriber may then
        # see the reconnection, ask, and have answers before the subscription has arrived.
        items = receive_while(subscriber, until=between.has_subscription)
        # Nothing in the numbers of this event tells of those before it.
        between.pass_on(4)
        items += take(subscriber, 5 - len(items))
        assert cursors(items) == [2, 3, 4, 5, 6]


def test_what_is_published_between_the_answers_and_the_subscription_is_fetched(
    zmq_context: Context,
) -> None:
    with filtered_and_cut_off(zmq_context) as (between, subscriber):
        assert cursors(take(subscriber, 5)) == [2, 3, 4, 5, 6]
        assert not receive_while(subscriber, until=between.has_subscription)
        between.publish(make.emotion("a"), make.emotion("b"), make.emotion("a"))
        between.pass_on(4, 6, 9)
        assert cursors(take(subscriber, 3)) == [7, 8, 9]


def test_what_is_no_longer_kept_is_told_as_missed(zmq_context: Context) -> None:
    with (
        lossy(zmq_context, keep=5) as between,
        Subscriber(
            between.endpoint, replay=between.daemon.replay, context=zmq_context
        ) as everything,
    ):
        between.await_subscriptions(1)
        between.publish(*(make.emotion("a") for _ in range(20)))
        between.pass_on(1, 20)
        first, missed, *rest = take(everything, 7)
        assert cursors([first]) == [1]
        assert missed == Missed(events=14, stream=None, after=1, before=16)
        assert cursors(rest) == [16, 17, 18, 19, 20]


def test_a_filtered_subscriber_is_told_that_something_may_be_missing(
    zmq_context: Context,
) -> None:
    with (
        lossy(zmq_context, keep=5) as between,
        Subscriber(
            between.endpoint, ["emotion."], replay=between.daemon.replay, context=zmq_context
        ) as subscriber,
    ):
        between.await_subscriptions(1)
        between.publish(*(make.emotion("a") for _ in range(20)))
        between.pass_on(1, 20)
        items = take(subscriber, 7)
        assert items[1] == Missed(events=None, stream=None, after=1, before=16)
        assert cursors(items) == [1, 16, 17, 18, 19, 20]


def test_a_replay_socket_that_does_not_answer_delays_but_loses_nothing_more(
    zmq_context: Context,
) -> None:
    silent = zmq_context.socket(zmq.ROUTER)
    port = silent.bind_to_random_port("tcp://127.0.0.1")
    with (
        lossy(zmq_context) as between,
        Subscriber(
            between.endpoint,
            replay=f"tcp://127.0.0.1:{port}",
            replay_timeout_s=0.05,
            context=zmq_context,
        ) as subscriber,
    ):
        between.await_subscriptions(1)
        between.publish(*(make.emotion("a") for _ in range(4)))
        between.pass_on(1, 4)
        items = take(subscriber, 3)
        assert items[1] == Missed(events=2, stream=None, after=1, before=4)
        assert cursors(items) == [1, 4]
    silent.close(linger=0)


def test_beginning_after_a_cursor_or_an_id(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        daemon.publish(*(make.emotion("a") for _ in range(5)))
        for after in (2, f"{RUN}-2"):
            newest = daemon.publisher.last_cursor
            with Subscriber(
                daemon.endpoint, replay=daemon.replay, after=after, context=zmq_context
            ) as subscriber:
                assert cursors(take(subscriber, newest - 2)) == list(range(3, newest + 1))
                daemon.publish(make.emotion("a"))
                assert cursors(take(subscriber, 1)) == [newest + 1]


def test_beginning_after_an_id_of_an_earlier_run(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        daemon.publish(make.emotion("a"), make.emotion("a"))
        with Subscriber(
            daemon.endpoint, replay=daemon.replay, after=f"{OTHER_RUN}-900", context=zmq_context
        ) as subscriber:
            restarted, *events = take(subscriber, 3)
            assert restarted == Restarted(RUN, OTHER_RUN, 900)
            assert cursors(events) == [1, 2]


def test_beginning_while_the_daemon_is_not_there_yet(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        endpoint, replay = daemon.endpoint, daemon.replay
    with Subscriber(
        endpoint, ["emotion."], replay=replay, after=0, replay_timeout_s=0.5, context=zmq_context
    ) as subscriber:
        assert subscriber.receive(0) is None
        with running(zmq_context, bind=endpoint, replay_bind=replay) as daemon:
            daemon.publish(make.emotion("a"), make.emotion("b"), make.emotion("c"))
            items = take(subscriber, 3)
            assert cursors(items) == [1, 2, 3]


def test_beginning_with_the_last_value_of_every_stream(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        names = [f"s{n}" for n in range(1200)]
        daemon.publish(*(make.emotion(name) for name in names))
        daemon.publish(*(make.emotion(name) for name in names[:100]), make.speech("s1"))
        with Subscriber(
            daemon.endpoint,
            ["emotion."],
            replay=daemon.replay,
            last_values=True,
            context=zmq_context,
        ) as subscriber:
            assert cursors(take(subscriber, 1200)) == list(range(101, 1301))
            daemon.publish(make.emotion("s5"))
            assert cursors(take(subscriber, 1)) == [1302]


def test_a_restart_of_the_daemon_is_told(zmq_context: Context) -> None:
    with running(zmq_context) as daemon:
        endpoint = daemon.endpoint
        subscriber = Subscriber(endpoint, context=zmq_context)
        daemon.publish(*(make.emotion("a") for _ in range(3)))
        while cursors(take(subscriber, 1)) != [3]:
            pass
    with subscriber, running(zmq_context, run_id=OTHER_RUN, bind=endpoint) as daemon:
        daemon.publish(make.stream("a"), make.emotion("a"))
        items: list[Item] = []
        while not cursors(items) or cursors(items)[-1] != 2:
            items += take(subscriber, 1)
        restarted = [item for item in items if isinstance(item, Restarted)]
        assert restarted == [Restarted(OTHER_RUN, RUN, 3)]
        seen = cursors(items[items.index(restarted[0]) :])
        missed = [item for item in items if isinstance(item, Missed)]
        assert seen == ([2] if missed else [1, 2])
        assert missed in ([], [Missed(events=1, stream=None, after=0, before=2)])


@pytest.mark.parametrize("topics", [[""], ["emotion."]])
def test_what_was_published_while_reconnecting_is_fetched(
    zmq_context: Context, topics: list[str]
) -> None:
    with running(zmq_context) as daemon:
        endpoint, replay = daemon.endpoint, daemon.replay
        subscriber = Subscriber(endpoint, topics, replay=replay, context=zmq_context)
        daemon.publish(make.emotion("a"))
        assert cursors(take(subscriber, 1)) == [1]
    with (
        subscriber,
        running(zmq_context, run_id=OTHER_RUN, bind=endpoint, replay_bind=replay) as daemon,
    ):
        daemon.publish(*(make.emotion(f"s{n}") for n in range(50)))
        restarted, *events = take(subscriber, 51)
        assert restarted == Restarted(OTHER_RUN, RUN, 1)
        assert cursors(events) == list(range(1, 51))


def test_what_cannot_be_read_is_skipped_and_counted(zmq_context: Context) -> None:
    with (
        lossy(zmq_context) as between,
        Subscriber(between.endpoint, context=zmq_context) as subscriber,
    ):
        between.await_subscriptions(1)
        between.publish(make.emotion("a"), make.emotion("a"), make.emotion("a"))
        between.pass_on(1)
        between.send(b"emotion.a")
        between.send(b"emotion.a", b"\0", b"{}")
        between.send(b"mood.a", pack_cursor(2), b'{"type":"mood","v":1}')
        between.pass_on(3)
        items = take(subscriber, 2)
        assert cursors(items) == [1, 3]
        assert subscriber.undecodable == 3
