"""How long somebody waits for a model."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable

from serd.channel import Waker
from serd.errors import ModelError

_SLICE_S = 1.0


class Patience:
    """Waits for one model, in as many steps as it takes: until a deadline, or the end of serd.

    Parameters
    ----------
    name
        Of the model, for the message.
    timeout_s
        All steps together.
    ended
        Readable from when serd is to end.
    waiting
        Called about once a second while the main thread waits.
    """

    def __init__(
        self, name: str, timeout_s: float, ended: Waker, waiting: Callable[[], object]
    ) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s
        self._ended = ended
        self._waiting = waiting

    def until(self, fd: int) -> None:
        """Wait until a file descriptor can be read, or is at its end.

        Raises
        ------
        ModelError
            ``model_timeout``: it took too long; ``model_stopping``: serd is to end.
        """
        # Not select(2), which knows descriptors up to 1023 only.
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.register(self._ended.fileno(), select.POLLIN)
        while (left_s := self._deadline_s - time.monotonic()) > 0:
            ready = dict(poller.poll(1000 * min(_SLICE_S, left_s)))
            if self._ended.fileno() in ready:
                raise ModelError("model_stopping", f"model {self._name!r}: serd is about to end")
            if fd in ready:
                return
            if threading.current_thread() is threading.main_thread():
                self._waiting()
        raise ModelError(
            "model_timeout",
            f"model {self._name!r}: was not open and warm after {self._timeout_s:g} s "
            "(inference.load_timeout_s); the model in use goes on",
        )
