"""Reading events: the subscriber that programs import.

>>> from serd.client import Subscriber
>>> with Subscriber("tcp://127.0.0.1:5556", ["emotion."]) as events:   # doctest: +SKIP
...     for event in events:
...         print(event.stream, event.label)
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

import zmq

from serd.errors import BindError, MessageError
from serd.protocol.events import EVENT_TYPES, DaemonEvent, Event, StreamEvent, decode
from serd.protocol.replay import (
    ReplayDone,
    ReplayError,
    ReplayRequest,
    StoredEvent,
    decode_reply,
    encode_request,
    unpack_cursor,
)

_MAX_STREAMS = 65_536
_STREAM_TYPES = tuple(kind for kind in EVENT_TYPES if kind != "daemon")


@dataclass(frozen=True)
class Missed:
    """Events that were published, wanted, and cannot be had any more.

    Parameters
    ----------
    events
        How many; None if they cannot be counted.
    stream
        Stream whose `seq` told so; None if its cursor or the daemon did.
    after, before
        They lie between these cursors, both excluded.
    """

    events: int | None
    stream: str | None
    after: int
    before: int


@dataclass(frozen=True)
class Restarted:
    """The daemon was started anew: cursors count from 1 again, all streams are new.

    Parameters
    ----------
    run_id
        Of the new run.
    previous_run_id
        Of the run that ended.
    last_cursor
        Newest event that was seen of it.
    """

    run_id: str
    previous_run_id: str
    last_cursor: int


Item: TypeAlias = Event | Missed | Restarted


@dataclass(frozen=True)
class _Fetched:
    run_id: str
    events: list[StoredEvent]
    expired: int
    newest: int


class Subscriber:
    """Iterates over the events of one daemon. One thread.

    Parameters
    ----------
    endpoint
        Where the daemon publishes, ``tcp://127.0.0.1:5556``.
    topics
        Prefixes of ``type.stream``; ``""`` is everything.
    replay
        The daemon's replay socket: missed events are fetched from there. Without it they are
        told as `Missed`.
    after
        Begin with the events after this one, given by its `id`, or by its cursor in the daemon's
        present run; 0 is the beginning of the run. Needs `replay`.
    last_values
        Begin with the newest event of every wanted topic of the streams that are open. Needs
        `replay`.
    timeout_s
        Iteration ends after so long without an event; None waits for ever.
    receive_hwm
        Events queued here while the program is busy; the daemon queues more.
    replay_timeout_s
        How long the replay socket may be silent before what it was asked for counts as missed.
    context
        ZeroMQ context; None makes one of the subscriber's own.

    Raises
    ------
    BindError
        An endpoint cannot be understood.
    ValueError
        `after` or `last_values` without `replay`, or `after` is not an event's id.

    Notes
    -----
    What is missing shows in the cursor to a subscriber to everything, and in `seq` to one to all
    types of a stream. To any other only the daemon can tell: with `replay` it is asked after every
    reconnection and whenever a `seq` jumps. What such a subscriber loses by being more than the
    queues behind is found only if the loss is followed by an event of the same stream.

    Events come in the order of their cursors, none twice.
    """

    def __init__(
        self,
        endpoint: str,
        topics: Sequence[str] = ("",),
        *,
        replay: str | None = None,
        after: str | int | None = None,
        last_values: bool = False,
        timeout_s: float | None = None,
        receive_hwm: int = 100_000,
        replay_timeout_s: float = 2.0,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        if replay is None and (after is not None or last_values):
            raise ValueError("`after` and `last_values` need `replay`")
        self._topics = tuple(topics)
        self._everything = "" in self._topics
        self._timeout_s = timeout_s
        self._replay_timeout_ms = round(replay_timeout_s * 1000)
        self._replay_endpoint = replay
        self._run_id: str | None = None
        self._cursor = 0
        if isinstance(after, str):
            self._run_id, self._cursor = _parse_id(after)
        elif after is not None:
            self._cursor = after
        self._resume = after is not None
        self._wants_last_values = last_values
        # Whether the next event must be checked for others before it, whatever its numbers say.
        self._doubtful = False
        self._seq: dict[str, int] = {}
        self._ready: deque[Item] = deque()
        self._undecodable = 0
        self._own_context = context is None
        self._context: zmq.Context[zmq.Socket[bytes]] = context or zmq.Context()
        self._replay: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._was_connected = False
        self._socket = self._context.socket(zmq.SUB)
        try:
            self._socket.setsockopt(zmq.RCVHWM, receive_hwm)
            for prefix in self._topics:
                self._socket.setsockopt(zmq.SUBSCRIBE, prefix.encode())
            if replay is not None and not self._everything:
                self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            _connect(self._socket, endpoint)
            self._connect_replay()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the sockets. Doing it twice does nothing."""
        if self._monitor is not None and not self._monitor.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
        self._socket.close(linger=0)
        if self._replay is not None:
            self._replay.close(linger=0)
        if self._own_context:
            self._context.term()

    @property
    def last_id(self) -> str | None:
        """`id` of the newest event seen; a later subscriber can begin `after` it."""
        return None if self._run_id is None else f"{self._run_id}-{self._cursor}"

    @property
    def undecodable(self) -> int:
        """Messages that could not be read and were skipped, of a newer version for one."""
        return self._undecodable

    def __iter__(self) -> Iterator[Item]:
        while (item := self.receive(self._timeout_s)) is not None:
            yield item

    def receive(self, timeout_s: float | None = None) -> Item | None:
        """The next item, or None if there was none in time; a timeout of None waits for ever."""
        self._begin()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._ready:
            try:
                # Asking first whether there is one would cost a third more while events queue up.
                parts = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                left_s = None if deadline is None else deadline - time.monotonic()
                if not self._socket.poll(None if left_s is None else max(0, round(left_s * 1000))):
                    return None
            else:
                self._take(parts)
        return self._ready.popleft()

    def _begin(self) -> None:
        if self._resume:
            self._resume = False
            self._recover(None, None)
        if self._wants_last_values:
            self._wants_last_values = False
            fetched = self._fetch(last=True, after=self._cursor, before=None)
            if fetched is not None:
                self._enter_run(fetched.run_id)
                self._accept_stored(fetched.events)
                # What is older than the newest event is not wanted but for its last values.
                self._cursor = max(self._cursor, fetched.newest)
                # Events may have come between this answer and the subscription.
                self._doubtful = True

    def _take(self, parts: list[bytes]) -> None:
        try:
            _topic, raw_cursor, payload = parts
            cursor = unpack_cursor(raw_cursor)
        except (ValueError, MessageError):
            self._undecodable += 1
            return
        try:
            event = decode(payload)
        except MessageError:
            self._undecodable += 1
            if cursor == self._cursor + 1:
                self._cursor = cursor
            return
        joining = self._run_id is None and not self._doubtful
        self._enter_run(event.id.partition("-")[0])
        if cursor > self._cursor + 1 and self._has_reconnected():
            # Whatever was missed lies before the newest event, or else before the next one that
            # is newer; this one may have been queued since before the disconnection.
            self._recover(None, None)
        if cursor <= self._cursor:
            return
        if not joining and cursor > self._cursor + 1:
            missed = self._missed_before(event)
            if self._replay is None:
                if missed is not None:
                    self._ready.append(missed)
            elif missed is not None or self._doubtful or self._is_out_of_turn(event):
                self._recover(cursor, missed)
        self._doubtful = False
        self._accept(event)

    def _has_reconnected(self) -> bool:
        again = False
        while self._monitor is not None and self._monitor.poll(0):
            self._monitor.recv_multipart()
            again, self._was_connected = again or self._was_connected, True
        return again

    def _enter_run(self, run_id: str) -> None:
        previous = self._run_id
        if run_id == previous:
            return
        self._run_id = run_id
        if previous is not None:
            self._ready.append(Restarted(run_id, previous, self._cursor))
            self._cursor = 0
            self._seq.clear()

    def _is_out_of_turn(self, event: Event) -> bool:
        return not isinstance(event, DaemonEvent) and event.seq != self._seq.get(event.stream, 0)

    def _missed_before(self, event: Event) -> Missed | None:
        """What is certainly missing before an event whose cursor does not follow the last."""
        after, before = self._cursor, event.cursor
        if self._everything:
            return Missed(before - after - 1, None, after, before)
        if isinstance(event, DaemonEvent) or not self._is_out_of_turn(event):
            return None
        expected = self._seq.get(event.stream)
        if expected is None or not self._has_all_types(event.stream):
            return None
        count = event.seq - expected
        return Missed(count if count > 0 else None, event.stream, after, before)

    def _has_all_types(self, stream: str) -> bool:
        return all(f"{kind}.{stream}".startswith(self._topics) for kind in _STREAM_TYPES)

    def _accept(self, event: Event) -> None:
        if event.cursor <= self._cursor:
            return
        self._cursor = event.cursor
        if not isinstance(event, DaemonEvent):
            # Taken out first, so that the streams are ordered by their newest event.
            self._seq.pop(event.stream, None)
            if not _is_last_of_stream(event):
                self._seq[event.stream] = event.seq + 1
                if len(self._seq) > _MAX_STREAMS:
                    del self._seq[next(iter(self._seq))]
        self._ready.append(event)

    def _accept_stored(self, events: Sequence[StoredEvent]) -> None:
        for stored in events:
            try:
                self._accept(decode(stored.payload))
            except MessageError:
                self._undecodable += 1

    def _recover(self, before: int | None, certain: Missed | None) -> None:
        """Fetch what lies between the newest event seen and the cursor `before`."""
        after = self._cursor
        fetched = self._fetch(last=False, after=after, before=before)
        if fetched is not None and before is None and fetched.run_id != self._run_id:
            resumed = self._run_id
            self._enter_run(fetched.run_id)
            if resumed is not None:
                after = 0
                fetched = self._fetch(last=False, after=0, before=None)
        if before is None:
            self._doubtful = True
        if fetched is None or fetched.run_id != self._run_id:
            if before is not None:
                self._ready.append(certain or Missed(None, None, after, before))
            return
        end = fetched.newest + 1 if before is None else before
        if self._everything:
            gone = end - after - 1 - len(fetched.events)
            if gone > 0:
                self._ready.append(Missed(gone, None, after, end))
        elif fetched.expired:
            self._ready.append(Missed(None, None, after, min(end, after + fetched.expired + 1)))
        self._accept_stored(fetched.events)

    def _connect_replay(self) -> None:
        if self._replay_endpoint is not None:
            self._replay = self._context.socket(zmq.DEALER)
            self._replay.setsockopt(zmq.RCVHWM, 0)
            _connect(self._replay, self._replay_endpoint)

    def _fetch(self, *, last: bool, after: int, before: int | None) -> _Fetched | None:
        """Ask for all wanted events between two cursors; None if no answer came."""
        found: dict[int, StoredEvent] = {}
        expired = newest = 0
        run_id: str | None = None
        for prefix in ("",) if self._everything else self._topics:
            position, more = after, True
            while more:
                page = self._fetch_page(
                    ReplayRequest(after=position, before=before, topic=prefix, last=last), found
                )
                if page is None or run_id not in (None, page.run_id):
                    return None
                if run_id is None:
                    expired = page.expired
                run_id, newest = page.run_id, page.newest
                position, more = page.after, page.more
        if run_id is None:
            return None
        return _Fetched(run_id, [found[cursor] for cursor in sorted(found)], expired, newest)

    def _fetch_page(
        self, request: ReplayRequest, found: dict[int, StoredEvent]
    ) -> ReplayDone | None:
        socket = self._replay
        assert socket is not None
        socket.send_multipart(encode_request(request))
        while socket.poll(self._replay_timeout_ms):
            try:
                reply = decode_reply(socket.recv_multipart())
            except MessageError:
                self._undecodable += 1
                continue
            if isinstance(reply, ReplayDone):
                return reply
            if isinstance(reply, ReplayError):
                return None
            found[reply.cursor] = reply
        # A late answer must not be taken for the one to the next request.
        socket.close(linger=0)
        self._connect_replay()
        return None


def _is_last_of_stream(event: Event) -> bool:
    return isinstance(event, StreamEvent) and (
        event.state == "closed" or (event.state == "refused" and event.seq == 0)
    )


def _parse_id(event_id: str) -> tuple[str, int]:
    run_id, hyphen, cursor = event_id.partition("-")
    if not (run_id and hyphen and cursor.isascii() and cursor.isdigit()):
        raise ValueError(f"{event_id!r} is not the id of an event")
    return run_id, int(cursor)


def _connect(socket: zmq.Socket[bytes], endpoint: str) -> None:
    socket.setsockopt(zmq.IPV6, int("[" in endpoint))
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise BindError(
            "bad_endpoint", f"cannot connect to {endpoint}: {zmq.strerror(error.errno or 0)}"
        ) from None
