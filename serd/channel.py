"""Bounded queues between threads that tell how full they were and what they dropped."""

from __future__ import annotations

import os
import select
from collections import deque
from enum import StrEnum
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Overflow(StrEnum):
    """What a full queue does with the next item."""

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"


class Waker:
    """A file descriptor that other threads make readable, to be polled beside ZeroMQ sockets.

    An eventfd coalesces any number of wakes into one readable state, so a producer that is
    ahead costs the consumer one read.
    """

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Descriptor for `zmq.Poller.register` or `select`."""
        return self._fd

    def wake(self) -> None:
        """Make the descriptor readable. Any thread; does nothing once closed."""
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """Make the descriptor unreadable again. Consumer thread only."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return

    def wait(self, timeout_s: float | None) -> bool:
        """Sleep until woken or until the time is up, then clear. Consumer thread only."""
        ready, _, _ = select.select([self._fd], [], [], timeout_s)
        if ready:
            self.clear()
        return bool(ready)

    def close(self) -> None:
        """Release the descriptor."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Channel(Generic[T]):
    """A bounded first-in first-out queue from many threads to one.

    Parameters
    ----------
    name
        Appears in logs and metrics.
    capacity
        Most items held at once.
    overflow
        What `put` does when the queue is full.
    waker
        Woken when an item comes into an empty channel, for a consumer that also polls sockets and
        then takes all that is inside.

    Notes
    -----
    `peak` and `dropped` are monotonic and may be read from any thread.
    """

    def __init__(
        self, name: str, capacity: int, overflow: Overflow, waker: Waker | None = None
    ) -> None:
        if capacity < 1:
            raise ValueError(f"channel {name}: capacity must be at least 1, not {capacity}")
        self.name = name
        self.capacity = capacity
        self.overflow = overflow
        self.peak = 0
        self.dropped = 0
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._waker = waker
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether `close` was called; items already inside can still be taken."""
        return self._closed

    def put(self, item: T, timeout_s: float | None = None) -> T | None:
        """Add an item; return the item that was dropped to obey the overflow policy, if any.

        With `Overflow.BLOCK`, waits for room up to `timeout_s` and then drops the new item. A
        closed channel drops every new item at once.
        """
        with self._changed:
            if self._closed:
                self.dropped += 1
                return item
            lost: T | None = None
            if len(self._items) >= self.capacity:
                if self.overflow is Overflow.BLOCK:
                    self._changed.wait_for(
                        lambda: self._closed or len(self._items) < self.capacity, timeout_s
                    )
                    if self._closed or len(self._items) >= self.capacity:
                        self.dropped += 1
                        return item
                elif self.overflow is Overflow.DROP_NEWEST:
                    self.dropped += 1
                    return item
                else:
                    lost = self._items.popleft()
                    self.dropped += 1
            was_empty = not self._items
            self._items.append(item)
            self.peak = max(self.peak, len(self._items))
            self._changed.notify_all()
        # Once for all that is taken together: a wake is a system call that gives the interpreter
        # lock away, and a consumer that gets it comes for a single item.
        if was_empty and self._waker is not None:
            self._waker.wake()
        return lost

    def take_all(self) -> list[T]:
        """Everything that is inside, oldest first, without waiting."""
        with self._changed:
            items = list(self._items)
            self._items.clear()
            if items:
                self._changed.notify_all()
        return items

    def take(self, timeout_s: float | None = None) -> T | None:
        """The oldest item, or None when none came in time or the channel is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._closed, timeout_s)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Refuse new items and release everyone who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._waker is not None:
            self._waker.wake()
