"""Time enters serd here and nowhere else, so that tests can drive it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Source of monotonic and wall time, in nanoseconds."""

    def monotonic_ns(self) -> int:
        """Time that never goes back, for intervals and deadlines."""
        ...

    def unix_ns(self) -> int:
        """Wall time since 1970 in UTC, for the anchors of events."""
        ...


class SystemClock:
    """The machine's own clocks."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    unix_ns = staticmethod(time.time_ns)
