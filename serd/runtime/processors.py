"""How many processors this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_SYSTEM = Path("/")


def processors(system: Path = _SYSTEM) -> float:
    """Those that it may run on, or less by the quota of its control group; parts of one count.

    Of Linux's control groups, version 2, in whose hierarchy every group up to the root may have a
    quota (``cpu.max``; "Control Group v2" in the kernel's documentation). Containers and services
    are limited by them.

    Parameters
    ----------
    system
        The root of the file system.
    """
    most = float(len(os.sched_getaffinity(0)))
    try:
        entries = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return most
    for entry in entries:
        if entry.startswith("0::/"):
            top = system / "sys/fs/cgroup"
            group = top / entry.removeprefix("0::/")
            for folder in (group, *group.parents):
                most = min(most, _quota(folder / "cpu.max"))
                if folder == top:
                    break
    return most


def _quota(file: Path) -> float:
    try:
        limit, period = file.read_text().split()
        return int(limit) / int(period)
    except (OSError, ValueError):
        # No such controller, or "max".
        return float("inf")
