"""Publishes events on XPUB, keeps the newest ones and answers requests for them.

A subscriber that comes late is sent, to itself alone, the newest event that matches each of its
subscriptions. libzmq can do that in manual mode (ZMQ_XPUB_MANUAL_LAST_VALUE, see zmq_setsockopt(3))
for one message a subscription; the newest events of many streams are asked for on the replay
socket.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog
import zmq

from serd.channel import Channel, Waker
from serd.clock import Clock
from serd.curve import Door
from serd.errors import BindError
from serd.protocol.events import DaemonEvent, Event, encode, topic
from serd.protocol.replay import StoredEvent, pack_cursor
from serd.pulse import Pulse
from serd.sinks.answers import Answers
from serd.sinks.desk import ReplayDesk
from serd.sinks.journal.writer import Journal
from serd.sinks.lastvalues import LastValues
from serd.sinks.outbox import Outbox, Outgoing
from serd.sinks.ring import EventRing
from serd.sinks.sockets import bind, prepare
from serd.sinks.stamper import Stamper
from serd.sinks.subscribers import SubscriberLimits, Subscribers
from serd.threads import name_thread

# A draft constant, which pyzmq names only in builds with the draft API; every libzmq since 4.3.3
# has it.
_XPUB_MANUAL_LAST_VALUE: Final = 98
# Plain integers: pyzmq's flags are enumerations, whose arithmetic costs as much as a send.
_NEXT_PART: Final = int(zmq.SNDMORE)
_FIRST_PART: Final = int(zmq.SNDMORE | zmq.DONTWAIT)
_SUBSCRIPTIONS_A_TURN: Final = 1000

_COUNTERS: Final = (
    "events_unencodable",
    "subscriber_overruns",
    "subscriptions",
    "unsubscriptions",
    "subscriber_messages_ignored",
)

_log = structlog.get_logger(__name__)

_OPEN: Final = Door()
_LIMITS: Final = SubscriberLimits()


@dataclass(frozen=True)
class PublisherOptions:
    """Where and how to publish.

    Parameters
    ----------
    bind, replay_bind
        ZeroMQ endpoints; ``tcp://127.0.0.1:*`` takes any free port. No `replay_bind`, no replay.
    send_hwm
        Messages queued for one slow subscriber; what is beyond is dropped for it alone.
    linger_ms
        How long what is queued may still be sent after `Publisher.stop`.
    max_wait_ms
        Longest wait of an event for the journal.
    """

    bind: tuple[str, ...]
    replay_bind: tuple[str, ...] = ()
    send_hwm: int = 100_000
    linger_ms: int = 1000
    max_wait_ms: float = 200.0


class Publisher:
    """Takes events from a channel and publishes them, in a thread of its own.

    Parameters
    ----------
    options
        Endpoints and limits.
    channel
        Events to publish; bounded, and its overflow policy is the caller's choice.
    waker
        The one that `channel` wakes.
    clock
        Stamps `emitted_at`.
    run_id
        Identity of this run of the daemon.
    ring
        Keeps what was published.
    context
        ZeroMQ context; None makes one, which `stop` ends.
    pulse
        Is told that the thread moves.
    door
        Who may subscribe and replay.
    limits
        What one subscriber may have.
    journal
        Open; has the events before they are published. None for none.
    """

    def __init__(
        self,
        options: PublisherOptions,
        channel: Channel[Event],
        waker: Waker,
        clock: Clock,
        run_id: str,
        ring: EventRing,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        pulse: Pulse | None = None,
        door: Door = _OPEN,
        limits: SubscriberLimits = _LIMITS,
        journal: Journal | None = None,
    ) -> None:
        self._clock = clock
        self._door = door
        self.subscribers = Subscribers(limits, door)
        self.on_subscription: Callable[[bool, bytes, str], None] = _nobody_asks
        self._pulse = pulse or Pulse()
        self._options = options
        self._channel = channel
        self._waker = waker
        self._run_id = run_id
        self._stamper = Stamper(run_id, clock, journal.first if journal is not None else 1)
        self._ring = ring
        self._last_values = LastValues()
        self.journal = journal
        self._outbox = Outbox(journal, clock, options.max_wait_ms) if journal is not None else None
        answers = Answers(run_id, ring, self._last_values, journal)
        self._desk = ReplayDesk(answers, self.subscribers, clock)
        self._own_context = context is None
        self._context: zmq.Context[zmq.Socket[bytes]] = context or zmq.Context()
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._published = 0
        self._stopping = False
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serd-publish", daemon=True)
        self.endpoints: tuple[str, ...] = ()
        self.replay_endpoints: tuple[str, ...] = ()
        self.failure: BaseException | None = None
        """What ended the thread, if it was not `stop`."""

    @property
    def last_cursor(self) -> int:
        """Cursor of the newest event that was published, 0 for none. Any thread."""
        return self._ring.newest_cursor

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def counts(self) -> dict[str, int]:
        """Monotonic counters. Any thread."""
        return {
            "events_published": self._published,
            **self._counts,
            **self._desk.counts,
            **self.subscribers.counts,
        }

    def journal_counts(self) -> dict[str, int]:
        """Counters of the journal, by names that begin with ``journal.``; none without one."""
        journal, outbox = self.journal, self._outbox
        if journal is None or outbox is None:
            return {}
        counts = {**journal.counts(), "late": outbox.late, "behind": int(outbox.behind)}
        return {f"journal.{name}": count for name, count in counts.items()}

    def start(self) -> None:
        """Bind and begin.

        Raises
        ------
        BindError
            An endpoint cannot be bound; nothing stays bound.
        """
        self._thread.start()
        self._bound.wait()
        if self.failure is not None:
            self._thread.join()
            self._end_context()
            raise self.failure
        if self.journal is not None:
            self.journal.start(self._waker)
        self._desk.start(self._waker)

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Publish what is in the channel, then close the sockets.

        Returns
        -------
        bool
            Whether all was published in time. What is queued for slow subscribers is sent for at
            most `linger_ms` more.
        """
        if self._thread.ident is not None:
            self._stopping = True
            self._waker.wake()
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        self._desk.stop()
        self._end_context()
        return True

    def _end_context(self) -> None:
        if self._own_context:
            self._context.term()

    def _run(self) -> None:
        name_thread("serd-publish")
        try:
            with self._socket(zmq.XPUB) as events, self._socket(zmq.ROUTER) as replay:
                self._bind(events, replay)
                self._bound.set()
                self._serve(events, replay)
        except BindError as error:
            self.failure = error
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self._bound.set()

    @contextlib.contextmanager
    def _socket(self, kind: int) -> Iterator[zmq.Socket[bytes]]:
        socket = self._context.socket(kind)
        try:
            yield socket
        except BaseException:
            self._door.close(socket)
            raise
        self._door.close(socket, self._options.linger_ms)

    def _bind(self, events: zmq.Socket[bytes], replay: zmq.Socket[bytes]) -> None:
        prepare(events, replay, self._options.send_hwm)
        self._door.serve(events, "subscribe")
        self._door.serve(replay, "replay")
        self.endpoints = tuple(bind(events, endpoint) for endpoint in self._options.bind)
        self.replay_endpoints = tuple(
            bind(replay, endpoint) for endpoint in self._options.replay_bind
        )

    def _serve(self, events: zmq.Socket[bytes], replay: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(self._waker.fileno(), zmq.POLLIN)
        poller.register(events, zmq.POLLIN)
        poller.register(replay, zmq.POLLIN)
        pulse = self._pulse.stage("publish", owed=self._owes)
        while True:
            pulse.beat()
            # Cleared before anything is looked at, so that no wake is lost in between.
            self._waker.clear()
            stopping = self._stopping
            self._publish_all(events)
            if stopping and not self._owes():
                self._pulse.end(pulse)
                return
            self._desk.send_late(replay)
            pulse.idle()
            ready = dict(poller.poll(self._outbox.wait_ms if self._outbox is not None else None))
            if events in ready:
                self._serve_subscriptions(events)
            if replay in ready:
                self._desk.serve(replay)

    def _owes(self) -> bool:
        """Whether there is something to be published."""
        return len(self._channel) > 0 or bool(self._outbox)

    def _publish_all(self, socket: zmq.Socket[bytes]) -> None:
        outbox = self._outbox
        if outbox is None:
            for event in self._channel.take_all():
                outgoing = self._prepare(event)
                if outgoing is not None:
                    self._publish(socket, outgoing)
            return
        # While the outbox is full the channel fills, and whoever fills that has to wait.
        if not outbox.full:
            prepared = [self._prepare(event) for event in self._channel.take_all()]
            outbox.put([outgoing for outgoing in prepared if outgoing is not None])
        for outgoing in outbox.take():
            self._publish(socket, outgoing)

    def _prepare(self, event: Event) -> Outgoing | None:
        """Stamp and encode."""
        last_of_stream = self._stamper.stamp(event)
        cursor = event.cursor
        try:
            stored = StoredEvent(cursor, topic(event), encode(event))
        except (ValueError, TypeError) as error:
            self._counts["events_unencodable"] += 1
            _log.error("event.unencodable", type=type(event).__name__, error=str(error))
            if self.journal is not None:
                self.journal.do_without(cursor)
            return None
        if last_of_stream and not isinstance(event, DaemonEvent):
            return stored, event.stream
        return stored, None

    def _publish(self, socket: zmq.Socket[bytes], outgoing: Outgoing) -> None:
        stored, ended = outgoing
        cursor = stored.cursor
        self._ring.append(stored)
        self._published += 1
        if ended is not None:
            self._last_values.forget(ended)
        else:
            self._last_values.keep(stored)
        try:
            _send(socket, stored)
        except zmq.Again:
            # A queue has become full. From here on libzmq passes its subscriber by without a word
            # until half of it is read, so that this is one count for all that it loses.
            self._counts["subscriber_overruns"] += 1
            _log.warning("subscriber.overrun", cursor=cursor, send_hwm=self._options.send_hwm)
            socket.setsockopt(zmq.XPUB_NODROP, 0)
            _send(socket, stored)
            socket.setsockopt(zmq.XPUB_NODROP, 1)

    def _serve_subscriptions(self, socket: zmq.Socket[bytes]) -> None:
        for _ in range(_SUBSCRIPTIONS_A_TURN):
            # Also has libzmq see to the ends of connections. One that it meets between a notice
            # and its last value makes it send that to everybody.
            if not int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return
            frame = socket.recv(zmq.DONTWAIT, copy=False)
            notice = frame.bytes
            prefix = notice[1:]
            if notice[:1] == b"\x01":
                if not self.subscribers.subscribe(frame, self._clock.monotonic_ns()):
                    continue
                socket.setsockopt(zmq.SUBSCRIBE, prefix)
                newest = self._last_values.newest(prefix)
                if newest is not None:
                    # Dropped if its queue is full: a second attempt would go to everybody.
                    socket.setsockopt(zmq.XPUB_NODROP, 0)
                    socket.setsockopt(_XPUB_MANUAL_LAST_VALUE, 1)
                    _send(socket, newest)
                    # Clears both modes; plain manual mode must be set again, or the next event
                    # after any notice would go to one subscriber alone.
                    socket.setsockopt(_XPUB_MANUAL_LAST_VALUE, 0)
                    socket.setsockopt(zmq.XPUB_MANUAL, 1)
                    socket.setsockopt(zmq.XPUB_NODROP, 1)
                self._counts["subscriptions"] += 1
                self.on_subscription(True, prefix, self._door.who(frame))
            elif notice[:1] == b"\x00":
                self._counts["unsubscriptions"] += 1
                self.on_subscription(False, prefix, self._door.who(frame))
                self.subscribers.unsubscribe(frame)
                socket.setsockopt(zmq.UNSUBSCRIBE, prefix)
            else:
                self._counts["subscriber_messages_ignored"] += 1


def _nobody_asks(subscribed: bool, topic: bytes, peer: str) -> None:
    """Stands for nobody who wants to hear of subscriptions."""


def _send(socket: zmq.Socket[bytes], event: StoredEvent) -> None:
    # Three sends cost a third of `send_multipart`, which examines every part.
    socket.send(event.topic, _FIRST_PART)
    socket.send(pack_cursor(event.cursor), _NEXT_PART)
    socket.send(event.payload)
