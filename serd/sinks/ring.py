"""The newest events, kept for subscribers that missed some or came late."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from serd.protocol.replay import StoredEvent

SCAN_LIMIT: Final = 20_000
"""Most events that are looked at for one page, so that a rare topic cannot hold up publishing."""


class Page(NamedTuple):
    """Some of the events asked for.

    `reached` is the cursor up to which everything was looked at; `more` tells whether there is
    more to look at.
    """

    events: list[StoredEvent]
    reached: int
    more: bool


class EventRing:
    """The newest `capacity` events; overflow: the oldest one is forgotten. One thread.

    Parameters
    ----------
    capacity
        At least 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"the event ring needs a capacity of at least 1, not {capacity}")
        self.capacity = capacity
        self._events: list[StoredEvent] = []
        self._oldest = 0
        self.newest_cursor = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def oldest_cursor(self) -> int:
        """Cursor of the oldest event that is kept, 0 for none."""
        return self._events[self._oldest].cursor if self._events else 0

    def append(self, event: StoredEvent) -> None:
        """Keep an event.

        Raises
        ------
        ValueError
            The cursor is not above the newest one.
        """
        if event.cursor <= self.newest_cursor:
            raise ValueError(f"cursor {event.cursor} is not above {self.newest_cursor}")
        if len(self._events) < self.capacity:
            self._events.append(event)
        else:
            self._events[self._oldest] = event
            self._oldest = (self._oldest + 1) % self.capacity
        self.newest_cursor = event.cursor

    def after(
        self, cursor: int, topic_prefix: bytes = b"", limit: int = 1000, before: int | None = None
    ) -> Page:
        """Events with ``cursor < their cursor < before`` and the topic prefix, oldest first."""
        events, oldest, size = self._events, self._oldest, len(self._events)
        low, high = 0, size
        while low < high:
            middle = (low + high) // 2
            if events[(oldest + middle) % size].cursor <= cursor:
                low = middle + 1
            else:
                high = middle
        end = min(size, low + SCAN_LIMIT)
        page = select(
            (events[(oldest + index) % size] for index in range(low, end)),
            topic_prefix,
            limit,
            before,
            cursor,
        )
        if page.more or end == size:
            return page
        following = events[(oldest + end) % size].cursor
        return page._replace(more=before is None or following < before)


def select(
    events: Iterable[StoredEvent],
    topic_prefix: bytes,
    limit: int,
    before: int | None,
    reached: int,
) -> Page:
    """The first `limit` of ascending events that match; `reached` is where the search begins."""
    found: list[StoredEvent] = []
    for event in events:
        if before is not None and event.cursor >= before:
            break
        if event.topic.startswith(topic_prefix):
            if len(found) == limit:
                return Page(found, reached, more=True)
            found.append(event)
        reached = event.cursor
    return Page(found, reached, more=False)
