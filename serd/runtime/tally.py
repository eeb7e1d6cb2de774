"""Telling of what happens too often to be told each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from serd.clock import Clock

_PERIOD_NS: Final = 60_000_000_000
_MOST_SUBJECTS: Final = 256

Key = tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    since_ns: int
    untold: int


class Tally:
    """Tells the first of a kind at once, those of the minute after it as one number.

    Parameters
    ----------
    tell
        Called with a kind and how often it happened since it was last told.
    clock
        Drives the periods.

    Notes
    -----
    A kind is told apart from others by a peer's address among other things, so a peer could have
    as many as it has addresses: beyond a number of kinds at once, all others are one (``*others``).
    """

    def __init__(self, tell: Callable[[Key, int], None], clock: Clock) -> None:
        self._tell = tell
        self._clock = clock
        self._entries: dict[Key, _Entry] = {}

    def note(self, *key: str) -> None:
        """It has happened again."""
        if key not in self._entries and len(self._entries) >= _MOST_SUBJECTS:
            key = (key[0], *("*others" for _ in key[1:]))
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(self._clock.monotonic_ns(), 0)
            self._tell(key, 1)
        else:
            entry.untold += 1

    def flush(self, *, all_of_it: bool = False) -> None:
        """Tell what has not been told for a minute, and forget what did not happen again."""
        now_ns = self._clock.monotonic_ns()
        for key, entry in list(self._entries.items()):
            if not all_of_it and now_ns - entry.since_ns < _PERIOD_NS:
                continue
            if entry.untold:
                self._tell(key, entry.untold)
                entry.since_ns, entry.untold = now_ns, 0
            else:
                del self._entries[key]
