"""What never reached a stream's row, and what is left to tell of a range that holds some of it.

All in source indexes, which are exact at every rate; ring indexes of a resampled stream are not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class Losses:
    """Ranges that were lost and told, noted in ascending order."""

    def __init__(self) -> None:
        self._ranges: deque[Range] = deque()

    def __len__(self) -> int:
        return len(self._ranges)

    def note(self, start: int, end: int) -> None:
        """Note that ``[start, end)`` was lost."""
        self._ranges.append((start, end))

    def forget(self, before: int) -> None:
        """Drop notes of what nothing can refer to any more."""
        while self._ranges and self._ranges[0][1] <= before:
            self._ranges.popleft()

    def within(self, start: int, end: int) -> tuple[Range, ...]:
        """Those parts of ``[start, end)`` that were lost."""
        if not self._ranges:
            return ()
        cut = ((max(start, first), min(end, last)) for first, last in self._ranges)
        return tuple((first, last) for first, last in cut if first < last)


def outside(start: int, end: int, ranges: Iterable[Range]) -> Iterator[Range]:
    """Those parts of ``[start, end)`` that lie in none of some ascending ranges."""
    for first, last in ranges:
        if start < min(first, end):
            yield start, min(first, end)
        start = max(start, last)
    if start < end:
        yield start, end
