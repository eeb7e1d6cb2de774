"""The service manager's notification protocol (sd_notify(3)).

Outside of systemd, where ``NOTIFY_SOCKET`` is not set, everything here does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends state to the service manager.

    Parameters
    ----------
    environ
        Where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are looked up.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the abstract namespace.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_s: float | None = None
        if environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            usec = environ.get("WATCHDOG_USEC", "")
            self.watchdog_s = int(usec) / 1e6 if usec.isdigit() else None

    def notify(self, **state: str) -> None:
        """Send assignments, for example ``notify(READY="1", STATUS="3 streams")``.

        A manager that does not listen is no reason to fail: errors are dropped.
        """
        if not self._address:
            return
        message = "\n".join(f"{name}={value}" for name, value in state.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                # A manager that reads nothing fills its queue with ten messages. What is said once
                # may wait for it; what is said again in a second must not stop the main thread.
                once = "READY" in state or "STOPPING" in state or "RELOADING" in state
                sock.settimeout(5.0 if once else 0.0)
                sock.sendto(message.encode(), self._address)
        except OSError:
            return
