"""What `seq` tells: whether an event follows the last one of its stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from serd.client.items import Missed
from serd.protocol.events import DaemonEvent, Event, ShadowEvent, StreamEvent

_MAX_STREAMS: Final = 65_536
# Those that `seq` counts.
_STREAM_TYPES: Final = ("stream", "speech", "emotion", "utterance", "gap")


class Sequences:
    """The next `seq` of every open stream.

    Parameters
    ----------
    topics
        What is subscribed to: only with all types of a stream is a jump a loss.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = tuple(topics)
        self._next: dict[str, int] = {}

    def clear(self) -> None:
        """All streams are new."""
        self._next.clear()

    def out_of_turn(self, event: Event) -> bool:
        """Whether the event is not the next one of its stream."""
        if isinstance(event, DaemonEvent | ShadowEvent):
            return False
        return event.seq != self._next.get(event.stream, 0)

    def missed_before(self, event: Event, after: int) -> Missed | None:
        """What is certainly missing between the cursor `after` and an event."""
        if isinstance(event, DaemonEvent | ShadowEvent) or not self.out_of_turn(event):
            return None
        expected = self._next.get(event.stream)
        if expected is None or not self._has_all_types(event.stream):
            return None
        count = event.seq - expected
        return Missed(count if count > 0 else None, event.stream, after, event.cursor)

    def _has_all_types(self, stream: str) -> bool:
        return all(f"{kind}.{stream}".startswith(self._topics) for kind in _STREAM_TYPES)

    def note(self, event: Event) -> None:
        """An event was accepted."""
        if isinstance(event, DaemonEvent | ShadowEvent):
            return
        # Taken out first, so that the streams are ordered by their newest event.
        self._next.pop(event.stream, None)
        if isinstance(event, StreamEvent) and (
            event.state == "closed" or (event.state == "refused" and event.seq == 0)
        ):
            return
        self._next[event.stream] = event.seq + 1
        if len(self._next) > _MAX_STREAMS:
            del self._next[next(iter(self._next))]
