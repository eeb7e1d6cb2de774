"""Events between the journal and the sockets: journalled first, but for so long and no longer."""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

import structlog

from serd.clock import Clock
from serd.protocol.replay import StoredEvent
from serd.sinks.journal.store import Batch
from serd.sinks.journal.writer import Journal

FULL: Final = 5000
"""Events that are held before no more are taken; those that make events then wait."""

_log = structlog.get_logger(__name__)


# An event, and its stream if the event is the stream's last. A plain tuple: a named one costs four
# times as much.
Outgoing: TypeAlias = tuple[StoredEvent, str | None]


class Outbox:
    """Holds events until the journal has them, or has had them for too long. One thread.

    A disk that stands still delays events once, by `max_wait_ms`: from then on they go out at once,
    and to the journal as well, until it has caught up.

    Parameters
    ----------
    journal
        Open.
    clock
        For how long events have been held, and for the time that the journal keeps with them.
    max_wait_ms
        Longest wait.
    """

    def __init__(self, journal: Journal, clock: Clock, max_wait_ms: float) -> None:
        self._journal = journal
        self._clock = clock
        self._max_wait_ns = round(max_wait_ms * 1e6)
        self._held: deque[tuple[int, list[Outgoing]]] = deque()
        self._number = 0
        self.behind = False
        """Whether events go out before they are journalled."""
        self.late = 0
        """Events that did."""

    def __len__(self) -> int:
        return self._number

    @property
    def full(self) -> bool:
        """Whether no more should be put in for now."""
        return self._number >= FULL

    def put(self, events: list[Outgoing]) -> None:
        """Take events, and hand them to the journal."""
        if events:
            at_ms = self._clock.unix_ns() // 1_000_000
            self._journal.put(Batch([event for event, _ in events], at_ms))
            self._held.append((self._clock.monotonic_ns(), events))
            self._number += len(events)

    def take(self) -> list[Outgoing]:
        """What may go out now."""
        held, journal = self._held, self._journal
        if self.behind and not journal.queued:
            self.behind = False
            _log.info("journal.caught_up", late=self.late)
        found: list[Outgoing] = []
        # Batch by batch: one is settled whole.
        while held and held[0][1][-1][0].cursor <= journal.settled:
            found += held.popleft()[1]
        if held and not self.behind and self.wait_ms == 0:
            self.behind = True
            _log.warning(
                "journal.stalled",
                path=str(journal.path),
                waited_ms=self._max_wait_ns // 1_000_000,
                queued=journal.queued,
                effect="events are published before they are journalled",
            )
        while self.behind and held:
            events = held.popleft()[1]
            self.late += len(events)
            found += events
        self._number -= len(found)
        return found

    @property
    def wait_ms(self) -> int | None:
        """Milliseconds until something must go out at the latest; None for nothing."""
        if not self._held:
            return None
        left_ns = self._held[0][0] + self._max_wait_ns - self._clock.monotonic_ns()
        return max(0, -(-left_ns // 1_000_000))
