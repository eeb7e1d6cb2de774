"""The main thread's work: signals and what other threads ask of it, one thing after the other."""

from __future__ import annotations

import signal
from collections.abc import Callable
from queue import Empty, SimpleQueue


class MainLoop:
    """Requests to the main thread.

    Attributes
    ----------
    ended
        Whether somebody asked for the end.
    """

    def __init__(self) -> None:
        # Its lock, unlike an Event's, may be asked for by a signal handler that interrupted its
        # owner.
        self._requests: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.ended = False
        self._on_end: Callable[[], object] = lambda: None

    def listen(self, on_hangup: Callable[[], object]) -> None:
        """End on SIGTERM and SIGINT, call `on_hangup` on SIGHUP. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self.end())
        signal.signal(signal.SIGHUP, lambda _number, _frame: self.call(on_hangup))

    def call(self, request: Callable[[], object]) -> None:
        """Have something done soon. Any thread, any signal handler."""
        self._requests.put(request)

    def at_end(self, action: Callable[[], object]) -> None:
        """Have something done as soon as the end is asked for, in the midst of a request as well.

        From any thread or signal handler, more than once perhaps; at once, if that was long ago.
        """
        self._on_end = action
        if self.ended:
            action()

    def end(self) -> None:
        """Ask for the end. Any thread, any signal handler."""
        self.ended = True
        self._on_end()
        self.call(lambda: None)

    def wait(self, timeout_s: float) -> None:
        """Do what was asked for; return when the time is up, after a request, or at the end."""
        if self.ended:
            return
        try:
            request = self._requests.get(timeout=timeout_s)
        except Empty:
            return
        request()
