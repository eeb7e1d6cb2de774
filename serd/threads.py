"""What the threads of the daemon are called, and how soon they make way for each other."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

_KERNEL_LIMIT_BYTES = 15
_SWITCH_INTERVAL_S = 0.0005


def name_thread(name: str) -> None:
    """Give the calling thread a name in the kernel, as ``top -H``, ``perf`` and ``ps -L`` show it.

    Parameters
    ----------
    name
        What is beyond the kernel's 15 bytes of UTF-8 is cut off.

    Notes
    -----
    Up to 3.13 Python keeps the names of its threads to itself. Where the kernel offers no such
    file (see proc_pid_comm(5)), nothing happens: a name is a convenience.
    """
    cut = name.encode()[:_KERNEL_LIMIT_BYTES].decode(errors="ignore")
    try:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(cut)
    except OSError:
        return


def hand_over_sooner() -> None:
    """Let a thread that waits for the interpreter lock ask for it after 0.5 ms, not Python's 5 ms.

    Of the whole process. Beside a thread that steps the segmenter without a pause, another one that
    wakes every 2 ms then came late by 6 to 10 ms at the 99th percentile, not 12 to 48. A thousand
    streams cost as much processor time as before, within 1.5 %.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
