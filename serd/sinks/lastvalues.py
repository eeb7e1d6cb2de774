"""The newest event of every topic, for subscribers that come late."""

from __future__ import annotations

from serd.protocol.events import EVENT_TYPES
from serd.protocol.replay import StoredEvent
from serd.sinks.ring import Page, select

_SHADOW = b"shadow."
_TYPES = tuple(kind.encode() + b"." for kind in EVENT_TYPES if kind not in ("daemon", "shadow"))


class LastValues:
    """One event a topic, in the order of their cursors. One thread.

    Bounded by the number of open streams: a stream's events are forgotten when it closes.
    """

    def __init__(self) -> None:
        self._events: dict[bytes, StoredEvent] = {}

    def __len__(self) -> int:
        return len(self._events)

    def keep(self, event: StoredEvent) -> None:
        """Replace the event of its topic; its cursor is above all others.

        A shadow's events are left out: they may come after their stream was closed.
        """
        if event.topic.startswith(_SHADOW):
            return
        # Re-insertion keeps the dictionary in the order of the cursors.
        self._events.pop(event.topic, None)
        self._events[event.topic] = event

    def forget(self, stream: str) -> None:
        """Forget the events of a stream that is closed."""
        name = stream.encode()
        for kind in _TYPES:
            self._events.pop(kind + name, None)

    def newest(self, topic_prefix: bytes) -> StoredEvent | None:
        """The newest event whose topic begins with the prefix."""
        for topic in reversed(self._events):
            if topic.startswith(topic_prefix):
                return self._events[topic]
        return None

    def after(
        self, cursor: int, topic_prefix: bytes = b"", limit: int = 1000, before: int | None = None
    ) -> Page:
        """Like `EventRing.after`, over the last values alone."""
        later = (event for event in self._events.values() if event.cursor > cursor)
        return select(later, topic_prefix, limit, before, cursor)
