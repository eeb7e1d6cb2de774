"""Stand-ins that several test packages share."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


class FakeClock:
    """A clock that moves only when told to; satisfies `serd.clock.Clock`."""

    def __init__(self, monotonic_ns: int = 0, unix_ns: int = 1_767_225_600_000_000_000) -> None:
        self.now_ns = monotonic_ns
        self._epoch_ns = unix_ns - monotonic_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def unix_ns(self) -> int:
        return self._epoch_ns + self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Return as soon as `condition()` is true; fail the test, naming `what`, if it never is."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s in vain for {what}")
        time.sleep(0.002)
