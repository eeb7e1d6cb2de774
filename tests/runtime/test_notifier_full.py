from __future__ import annotations

import socket
from pathlib import Path

from serd.runtime.systemd import Notifier


def test_a_manager_that_reads_nothing_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        notifier = Notifier({"NOTIFY_SOCKET": str(path)})
        # More than any queue of datagrams holds; pytest's time limit ends a call that waits.
        for number in range(2000):
            notifier.notify(WATCHDOG="1", STATUS=f"{number} streams")
        assert manager.recv(100) == b"WATCHDOG=1\nSTATUS=0 streams"
