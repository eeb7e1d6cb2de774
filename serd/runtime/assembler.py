"""Puts the events of each stream into one order, whichever thread finished first.

Segments are judged in batches, by another thread and later than the onsets, offsets and gaps
around them are known. Every event of a stream therefore takes a place in the stream's line when
it is *decided*; it leaves when all before it have left. So the order of a stream's events depends
on its audio alone, and a recording played twice gives the same sequence of events.

A stream that ends and begins anew at once, because its tap was restarted, has two lines. The second
waits for the first to end: or its ``opened`` would come before the ``closed`` of the one before,
whose last segments are still being judged, and look undone by it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence

from serd.protocol.events import Event


class Place:
    """One place in a stream's line, to be filled once."""

    __slots__ = ("events", "key", "last")

    def __init__(self, key: int) -> None:
        self.key = key
        self.events: Callable[[], Sequence[Event]] | None = None
        # Nothing comes after it in its line.
        self.last = False


def _nothing() -> Sequence[Event]:
    return ()


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
        # The newest line of each stream that has one, by its name, and the other way round.
        self._newest: dict[Hashable, int] = {}
        self._names: dict[int, Hashable] = {}
        # Lines that wait for the end of another, which is the key of `_followers`.
        self._held: set[int] = set()
        self._followers: dict[int, int] = {}
        self._lock = threading.Lock()
        self._pending = 0
        self.peak = 0

    def begin(self, key: int, name: Hashable) -> None:
        """Begin a line of the stream of this name; what it says waits for those before it."""
        with self._lock:
            before = self._newest.get(name)
            if before is not None:
                self._followers[before] = key
                self._held.add(key)
            self._newest[name] = key
            self._names[key] = name

    def end(self, key: int) -> None:
        """End a line that was begun: once all of it has left, the next of its name may speak."""
        place = self.reserve(key)
        place.last = True
        self.fill(place, _nothing)

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
            following: int | None = place.key
            while following is not None and following not in self._held:
                following = self._let_go(following)

    def _let_go(self, key: int) -> int | None:
        """Emit what is complete at the head of a line; the line that this has set free, if any."""
        line = self._lines.get(key)
        following = None
        while line and (done := line[0].events) is not None:
            # A segment's place is known to its own context. Cutting that ring of references
            # frees the segment's audio now; the garbage collector would keep it for seconds.
            place = line.popleft()
            place.events = None
            self._pending -= 1
            # Under the lock, so that two threads cannot overtake each other.
            for event in done():
                self._emit(event)
            if place.last:
                following = self._ended(key)
        if line is not None and not line:
            del self._lines[key]
        return following

    def _ended(self, key: int) -> int | None:
        name = self._names.pop(key)
        if self._newest[name] == key:
            del self._newest[name]
        following = self._followers.pop(key, None)
        if following is not None:
            self._held.discard(following)
        return following

    def say(self, key: int, make: Callable[[], Sequence[Event]]) -> None:
        """Take a place and fill it at once."""
        self.fill(self.reserve(key), make)

    @property
    def pending(self) -> int:
        """Places that have not left yet."""
        return self._pending
