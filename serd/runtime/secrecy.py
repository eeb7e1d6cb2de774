"""Keeps what is in memory out of files: no core dump of this process is ever written."""

from __future__ import annotations

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Have a crash leave no copy of the memory, and with it of the audio that is in it.

    The limit alone would not do: the kernel does not heed it where dumps are piped to a program,
    as systemd-coredump and apport have it (core(5)). A process that is not dumpable (prctl(2))
    gives none to anybody, and no process of the same user may read its memory (ptrace(2)).

    Raises
    ------
    OSError
        The kernel refuses; a daemon that cannot keep the promise must not start.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_DUMPABLE): {os.strerror(number)}")
