"""Puts the events of each stream into one order, whichever thread finished first.

Segments are judged in batches, by another thread and later than the onsets, offsets and gaps
around them are known. Every event of a stream therefore takes a place in the stream's line when
it is *decided*; it leaves when all before it have left. So the order of a stream's events depends
on its audio alone, and a recording played twice gives the same sequence of events.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from serd.protocol.events import Event


class Place:
    """One place in a stream's line, to be filled once."""

    __slots__ = ("events", "key")

    def __init__(self, key: int) -> None:
        self.key = key
        self.events: Callable[[], Sequence[Event]] | None = None


class Assembler:
    """Orders events by stream and passes them on.

    Parameters
    ----------
    emit
        Takes an event on its way out; may block, which is how a full publisher holds back the
        stages before it.

    Notes
    -----
    Thread-safe. A line is known by an integer key, unique to one opening of a stream.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._lines: dict[int, deque[Place]] = {}
        self._lock = threading.Lock()
        self._pending = 0
        self.peak = 0

    def reserve(self, key: int) -> Place:
        """Take the next place in a line, to be filled later."""
        place = Place(key)
        with self._lock:
            self._lines.setdefault(key, deque()).append(place)
            self._pending += 1
            self.peak = max(self.peak, self._pending)
        return place

    def fill(self, place: Place, make: Callable[[], Sequence[Event]]) -> None:
        """Fill a place and let go of all that is complete at the head of its line.

        `make` is called when the place's turn has come, after everything before it was emitted:
        an utterance's result is computed there from the segments that went before.
        """
        with self._lock:
            place.events = make
            line = self._lines[place.key]
            while line and (done := line[0].events) is not None:
                # A segment's place is known to its own context. Cutting that ring of references
                # frees the segment's audio now; the garbage collector would keep it for seconds.
                line.popleft().events = None
                self._pending -= 1
                # Under the lock, so that two threads cannot overtake each other.
                for event in done():
                    self._emit(event)
            if not line:
                del self._lines[place.key]

    def say(self, key: int, make: Callable[[], Sequence[Event]]) -> None:
        """Take a place and fill it at once."""
        self.fill(self.reserve(key), make)

    @property
    def pending(self) -> int:
        """Places that have not left yet."""
        return self._pending
