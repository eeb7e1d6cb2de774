"""When to run a batch, and with what: no threads, no clock, no model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Batcher(Generic[T]):
    """First in, first out; a batch is due when it is full or its oldest item has waited enough.

    Parameters
    ----------
    capacity
        Most items that wait; one more drops the oldest, which is the stalest.
    max_batch
        Most items of one batch.
    max_wait_ns
        Longest that an item waits for company.

    Attributes
    ----------
    peak
        Most items that ever waited.
    dropped
        Items dropped because the queue was full.
    flushing
        While True every item is due at once (draining).
    """

    def __init__(self, capacity: int, max_batch: int, max_wait_ns: int) -> None:
        if capacity < 1 or max_batch < 1 or max_wait_ns < 0:
            raise ValueError(
                "capacity and max_batch must be at least 1 and max_wait_ns at least 0, "
                f"not {capacity}, {max_batch} and {max_wait_ns}"
            )
        self.capacity = capacity
        # A batch that never fits into the queue would never be due by its size.
        self.max_batch = min(max_batch, capacity)
        self.max_wait_ns = max_wait_ns
        self.peak = 0
        self.dropped = 0
        self.flushing = False
        self._waiting: deque[tuple[int, T]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, item: T, now_ns: int) -> T | None:
        """Add an item; return the oldest if it had to go to make room."""
        lost: T | None = None
        if len(self._waiting) >= self.capacity:
            lost = self._waiting.popleft()[1]
            self.dropped += 1
        self._waiting.append((now_ns, item))
        self.peak = max(self.peak, len(self._waiting))
        return lost

    def deadline_ns(self) -> int | None:
        """When `take` will next give something if nothing else comes; None when empty.

        A moment in the past means at once.
        """
        if not self._waiting:
            return None
        oldest_ns = self._waiting[0][0]
        if self.flushing or len(self._waiting) >= self.max_batch:
            return oldest_ns
        return oldest_ns + self.max_wait_ns

    def take(self, now_ns: int) -> list[T]:
        """The oldest items, at most `max_batch`, if a batch is due; otherwise nothing."""
        deadline_ns = self.deadline_ns()
        if deadline_ns is None or now_ns < deadline_ns:
            return []
        count = min(self.max_batch, len(self._waiting))
        return [self._waiting.popleft()[1] for _ in range(count)]

    def withdraw(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out those that wait and are unwanted, oldest first. The others keep their turn."""
        lost = [item for _, item in self._waiting if unwanted(item)]
        if lost:
            self._waiting = deque(entry for entry in self._waiting if not unwanted(entry[1]))
        return lost

    def clear(self) -> list[T]:
        """Take out everything that waits, due or not, oldest first."""
        items = [item for _, item in self._waiting]
        self._waiting.clear()
        return items
