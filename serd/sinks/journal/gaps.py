"""Cursors that the journal will not have: it is told of them when it can be written."""

from __future__ import annotations

import threading


class Gaps:
    """Ranges of cursors, first and last, that are given up and not yet written down. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ranges: list[tuple[int, int]] = []
        self._being_written = 0

    def add(self, first: int, last: int) -> None:
        """Give up a range."""
        with self._lock:
            ranges = self._ranges
            # One that is being written is let be: what it grew by would be forgotten with it.
            if len(ranges) > self._being_written and ranges[-1][1] == first - 1:
                ranges[-1] = (ranges[-1][0], last)
            else:
                ranges.append((first, last))

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """All of them, in the order of the cursors."""
        with self._lock:
            return sorted(self._ranges)

    @property
    def newest(self) -> int:
        """Last cursor of the range that was given up last, 0 for none."""
        with self._lock:
            return self._ranges[-1][1] if self._ranges else 0

    def to_write(self) -> list[tuple[int, int]]:
        """Those that there are now; `written` is to follow, unless they could not be written."""
        with self._lock:
            self._being_written = len(self._ranges)
            return list(self._ranges)

    def written(self) -> None:
        """Forget what `to_write` gave last."""
        with self._lock:
            del self._ranges[: self._being_written]
            self._being_written = 0
