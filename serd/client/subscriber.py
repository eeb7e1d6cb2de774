"""The subscriber: live events, and what the replay socket has of those that were missed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import zmq

from serd.client.fetch import Gap, Page, Recovery, ReplaySocket
from serd.client.items import Item, Missed, Restarted
from serd.client.live import LiveSocket
from serd.client.sequences import Sequences
from serd.curve import Link
from serd.errors import MessageError
from serd.protocol.events import Event, decode
from serd.protocol.replay import JOURNALLED_FROM, ReplayError, unpack_cursor


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
        Begin with the events after this one, given by its `id`, or by its cursor (without a
        journal, of the daemon's present run); 0 is the beginning of what is kept. Needs `replay`.
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
    curve
        The program's keys and the daemon's public one, where the daemon uses CURVE.

    Raises
    ------
    BindError
        An endpoint cannot be understood.
    ValueError
        `after` or `last_values` without `replay`, or `after` is not an event's id.

    Notes
    -----
    With `replay`, and a daemon that has a journal, every event comes once and in the order of the
    cursors: whatever the subscriber misses, because it was away, or behind, or the daemon was
    killed, it asks for, and what the journal no longer has is told as `Missed`. Without a journal
    that holds for as long as the daemon runs.

    What is missing shows in the cursor to a subscriber to everything, and in `seq` to one to all
    types of a stream. To any other only the daemon can tell: with `replay` it is asked after every
    reconnection, every restart, and whenever a `seq` jumps. What such a subscriber loses by being
    more than the queues behind is found only if the loss is followed by an event of the same
    stream.
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
        replay_timeout_s: float = 30.0,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        curve: Link | None = None,
    ) -> None:
        if replay is None and (after is not None or last_values):
            raise ValueError("`after` and `last_values` need `replay`")
        self._topics = tuple(topics)
        self._everything = "" in self._topics
        self._timeout_s = timeout_s
        self._run_id: str | None = None
        self._last_id: str | None = None
        self._cursor = 0
        if isinstance(after, str):
            self._run_id, self._cursor = _parse_id(after)
            self._last_id = after
        elif after is not None:
            self._cursor = after
        # Cursor of the newest event; `_cursor` is beyond it where others are known to be missing.
        self._seen = self._cursor
        self._wants_past = after is not None
        self._wants_last_values = last_values
        # Whether the next event must be checked for others before it, whatever its numbers say.
        self._doubtful = False
        self._sequences = Sequences(self._topics)
        self._ready: deque[Item] = deque()
        self._undecodable = 0
        self._recovery: Recovery | None = None
        # A live event that must wait for those before it.
        self._held: list[bytes] | None = None
        self._own_context = context is None
        self._context: zmq.Context[zmq.Socket[bytes]] = context or zmq.Context()
        self._replay: ReplaySocket | None = None
        self._live = LiveSocket(self._context)
        try:
            watched = replay is not None
            self._live.connect(endpoint, self._topics, receive_hwm, watched, curve)
            if replay is not None:
                self._replay = ReplaySocket(self._context, replay, replay_timeout_s, curve)
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
        self._live.close()
        if self._replay is not None:
            self._replay.close()
        if self._own_context:
            self._context.term()

    @property
    def last_id(self) -> str | None:
        """`id` of the newest event received; a later subscriber can begin `after` it."""
        return self._last_id

    @property
    def undecodable(self) -> int:
        """Messages that could not be read and were skipped, of a newer version for one."""
        return self._undecodable + (self._replay.undecodable if self._replay is not None else 0)

    def __iter__(self) -> Iterator[Item]:
        while (item := self.receive(self._timeout_s)) is not None:
            yield item

    def receive(self, timeout_s: float | None = None) -> Item | None:
        """The next item, or None if there was none in time; a timeout of None waits for ever."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._ready:
            if self._recovery is None:
                self._plan()
            if not (self._advance() if self._recovery is not None else self._read()) and (
                not self._wait(deadline)
            ):
                return None
        item = self._ready.popleft()
        if not isinstance(item, Missed | Restarted):
            self._last_id = item.id
        return item

    def _plan(self) -> None:
        if self._wants_past:
            self._wants_past = False
            self._recover(None)
        elif self._wants_last_values:
            self._wants_last_values = False
            self._recover(None, last=True)

    def _wait(self, deadline: float | None) -> bool:
        """Wait until there may be something to do; False if the time is up."""
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            return False
        until = deadline
        if self._recovery is not None and self._replay is not None:
            wakes_at = self._replay.wakes_at
            until = wakes_at if until is None else min(until, wakes_at)
            self._replay.socket.poll(max(0, int((until - now) * 1000) + 1))
        else:
            self._live.wait(None if until is None else max(0, int((until - now) * 1000) + 1))
        return True

    def _read(self) -> bool:
        """Take one live message, or notice a reconnection; False if there is neither."""
        try:
            # Asking first whether there is one would cost a third more while events queue up.
            parts = self._live.receive(zmq.DONTWAIT)
        except zmq.Again:
            if not self._live.has_reconnected():
                return False
            self._recover(None)
            return True
        self._take(parts)
        return True

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
        if cursor == self._cursor + 1 and self._run_id and event.id.startswith(self._run_id):
            # By far the most events of a subscriber to everything.
            self._doubtful = False
            self._append(event)
            return
        run_id = event.id.partition("-")[0]
        joining = self._run_id is None and not self._doubtful
        if not self._continues(cursor):
            self._enter_run(run_id, cursor)
        changed = self._run_id not in (None, run_id)
        if cursor > self._cursor + 1 and self._live.has_reconnected():
            # Whatever was missed lies before the newest event, or else before the next one that
            # is newer; this one may have been queued since before the disconnection.
            self._recover(None, held=parts)
            return
        if cursor <= self._cursor:
            return
        if not joining and cursor > self._cursor + 1:
            suspect = changed or self._doubtful or self._sequences.out_of_turn(event)
            if self._replay is not None and (suspect or self._everything):
                self._recover(cursor, held=parts)
                return
            self._tell_missed(event, changed)
        self._doubtful = False
        self._accept(event, sparse=joining)

    def _continues(self, cursor: int) -> bool:
        return cursor >= JOURNALLED_FROM and self._cursor >= JOURNALLED_FROM

    def _enter_run(self, run_id: str, cursor: int) -> None:
        previous = self._run_id
        if run_id == previous:
            return
        self._run_id = run_id
        self._sequences.clear()
        if previous is not None:
            continues = cursor >= JOURNALLED_FROM and self._seen >= JOURNALLED_FROM
            self._ready.append(Restarted(run_id, previous, self._seen, continues))
            if not continues and cursor < JOURNALLED_FROM:
                self._cursor = 0

    def _tell_missed(self, event: Event, changed: bool) -> None:
        """Tell what is certainly missing before an event whose cursor does not follow the last."""
        after, before = self._cursor, event.cursor
        if self._everything:
            if changed:
                self._ready.append(Missed(None, None, after, before))
            # Within a run it shows when the event is accepted.
            return
        missed = self._sequences.missed_before(event, after)
        if missed is not None:
            self._ready.append(missed)

    def _accept(self, event: Event, *, sparse: bool = False) -> None:
        """Make an event the next item; `sparse` if others before it were not asked for."""
        cursor = event.cursor
        if cursor <= self._cursor:
            return
        run_id = event.id.partition("-")[0]
        if run_id == self._run_id:
            counts = self._continues(cursor) or cursor < JOURNALLED_FROM
            if counts and self._everything and not sparse and cursor > self._cursor + 1:
                number = cursor - self._cursor - 1
                self._ready.append(Missed(number, None, self._cursor, cursor))
        else:
            self._enter_run(run_id, cursor)
        self._append(event)

    def _append(self, event: Event) -> None:
        self._cursor = self._seen = event.cursor
        self._sequences.note(event)
        self._ready.append(event)

    def _recover(
        self, before: int | None, *, held: list[bytes] | None = None, last: bool = False
    ) -> None:
        """Begin to fetch what lies between the newest event seen and the cursor `before`."""
        self._held = held
        topics = ("",) if self._everything else self._topics
        self._recovery = Recovery(topics, self._cursor, before, last=last)

    def _advance(self) -> bool:
        """Go on with the recovery; False if there is nothing to do but wait."""
        recovery, replay = self._recovery, self._replay
        assert recovery is not None
        assert replay is not None
        if not replay.asking:
            replay.ask(recovery.request())
        answer = replay.poll()
        if answer is None:
            return False
        if isinstance(answer, ReplayError):
            self._end_recovery(found=False)
        elif self._is_of_another_run(answer):
            if recovery.before is not None:
                self._end_recovery(found=False)
            else:
                self._enter_run(answer.done.run_id, 0)
                self._recover(None, held=self._held, last=recovery.last)
        else:
            if not answer.done.began:
                self._run_id = answer.done.run_id
            self._accept_stored(recovery, answer)
            if recovery.finished:
                self._end_recovery(found=True)
        return True

    def _is_of_another_run(self, answer: Page) -> bool:
        """Whether cursors have begun again, so that those of the answer are no use."""
        if answer.done.began:
            return False
        if self._cursor >= JOURNALLED_FROM:
            self._run_id = self._run_id or ""
            return True
        return self._run_id not in (None, answer.done.run_id)

    def _accept_stored(self, recovery: Recovery, page: Page) -> None:
        for found in recovery.take(page):
            if isinstance(found, Gap):
                self._accept_gap(found)
                continue
            try:
                self._accept(decode(found.payload), sparse=recovery.last)
            except MessageError:
                self._undecodable += 1
                self._cursor = max(self._cursor, found.cursor)

    def _accept_gap(self, gap: Gap) -> None:
        first = max(gap.first, self._cursor + 1)
        if first <= gap.last:
            number = gap.last - first + 1 if gap.counted and self._everything else None
            self._ready.append(Missed(number, None, first - 1, gap.last + 1))
            self._cursor = gap.last

    def _end_recovery(self, *, found: bool) -> None:
        recovery, held = self._recovery, self._held
        assert recovery is not None
        self._recovery = self._held = None
        if recovery.before is None:
            if found and recovery.last:
                # What is older than the newest event is not wanted but for its last values.
                self._cursor = max(self._cursor, recovery.newest)
            # Events may have come between the last answer and the subscription.
            self._doubtful = True
            if held is not None:
                self._take(held)
            return
        assert held is not None
        event = decode(held[2])
        changed = self._run_id not in (None, event.id.partition("-")[0])
        if not found and event.cursor > self._cursor + 1:
            told = len(self._ready)
            self._tell_missed(event, changed)
            if len(self._ready) == told and not (self._everything and not changed):
                self._ready.append(Missed(None, None, self._cursor, event.cursor))
        self._doubtful = False
        self._accept(event)


def _parse_id(event_id: str) -> tuple[str, int]:
    run_id, hyphen, cursor = event_id.partition("-")
    if not (run_id and hyphen and cursor.isascii() and cursor.isdigit()):
        raise ValueError(f"{event_id!r} is not the id of an event")
    return run_id, int(cursor)
