"""What the process uses, read from the kernel when somebody asks."""

from __future__ import annotations

import os
import resource
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PREFIX = "serd-"


class ThreadTimes:
    """Processor seconds of each stage's threads, which cost the stages nothing to measure.

    Parameters
    ----------
    tasks
        Folder with an entry a thread, see proc_pid_task(5).

    Notes
    -----
    Threads are known by the names that `serd.threads.name_thread` gave them. The time of a thread
    that has ended stays, so that sums never fall. All that serd did not name, libraries' threads
    and the main one before it has work, is ``other``.
    """

    def __init__(self, tasks: Path = Path("/proc/self/task")) -> None:
        self._tasks = tasks
        self._ended: Counter[str] = Counter()
        self._alive: dict[str, tuple[str, int]] = {}
        self._told: dict[str, int] = {}
        self._lock = threading.Lock()

    def seconds(self) -> dict[str, float]:
        """Processor seconds, user and system, by stage."""
        with self._lock:
            alive = dict(self._read())
            for thread, (stage, ticks) in self._alive.items():
                if thread not in alive or alive[thread][1] < ticks:
                    self._ended[stage] += ticks
            self._alive = alive
            sums = self._ended.copy()
            for stage, ticks in alive.values():
                sums[stage] += ticks
            # A thread's first moments are under another name, and leave it with its naming.
            self._told |= {stage: max(n, self._told.get(stage, 0)) for stage, n in sums.items()}
            return {stage: ticks / _TICKS for stage, ticks in sorted(self._told.items())}

    def _read(self) -> Iterator[tuple[str, tuple[str, int]]]:
        for task in self._tasks.iterdir():
            try:
                text = (task / "stat").read_text()
            except OSError:
                # The thread has ended since the folder was listed.
                continue
            head, _, tail = text.rpartition(")")
            name = head.partition("(")[2]
            fields = tail.split()
            if name.startswith(_PREFIX):
                stage = name.removeprefix(_PREFIX)
            else:
                stage = "main" if task.name == str(os.getpid()) else "other"
            yield task.name, (stage, int(fields[11]) + int(fields[12]))


def process_metrics(started_unix_s: float) -> Iterator[Metric]:
    """The metrics that every Prometheus client has, by their usual names.

    The client's own collector needs ``/proc/stat``, which a service with ``ProcSubset=pid`` has
    not.
    """
    used = os.times()
    yield CounterMetricFamily(
        "process_cpu_seconds",
        "User and system processor time used, in seconds.",
        value=used.user + used.system,
    )
    yield GaugeMetricFamily(
        "process_start_time_seconds", "Unix time at which serd was started.", value=started_unix_s
    )
    pages = Path("/proc/self/statm").read_text().split()
    yield GaugeMetricFamily(
        "process_virtual_memory_bytes", "Virtual memory.", value=int(pages[0]) * _PAGE
    )
    yield GaugeMetricFamily(
        "process_resident_memory_bytes", "Resident memory.", value=int(pages[1]) * _PAGE
    )
    yield GaugeMetricFamily("process_open_fds", "Open file descriptors.", value=open_descriptors())
    yield GaugeMetricFamily(
        "process_max_fds",
        "Most file descriptors that may be open.",
        value=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
    # Those of libraries as well, which Python does not count.
    yield GaugeMetricFamily(
        "process_threads", "Threads.", value=len(list(Path("/proc/self/task").iterdir()))
    )


def open_descriptors() -> int:
    """File descriptors that the process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # entries vanish while they are listed
