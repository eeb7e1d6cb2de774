"""What the kernel knows of a process: processor time by thread, memory; and of the machine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_TICKS_S = os.sysconf("SC_CLK_TCK")
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "pyzmq")


@dataclass(frozen=True)
class Sample:
    """A process at one moment.

    Attributes
    ----------
    at_ns
        Monotonic time.
    threads_s
        Processor seconds by the name of the thread; threads of one name are added up.
    rss_kib
        Resident memory.
    busy_s
        Processor seconds of the whole machine.
    """

    at_ns: int
    threads_s: dict[str, float]
    rss_kib: int
    busy_s: float

    @property
    def cpu_s(self) -> float:
        """Processor seconds of all threads."""
        return sum(self.threads_s.values())


def sample(pid: int, at_ns: int) -> Sample:
    """Look at a process.

    Raises
    ------
    OSError
        There is no such process.
    """
    threads: dict[str, float] = {}
    folder = Path(f"/proc/{pid}")
    for task in (folder / "task").iterdir():
        try:
            name, fields = _stat(task)
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        used = (int(fields[11]) + int(fields[12])) / _TICKS_S
        threads[name] = threads.get(name, 0.0) + used
    resident = int((folder / "statm").read_text().split()[1])
    return Sample(at_ns, threads, resident * _PAGE_KIB, machine_busy_s())


def _stat(folder: Path) -> tuple[str, list[str]]:
    """Name of a thread and what follows it in its ``stat`` (a name may hold anything)."""
    before, _, after = (folder / "stat").read_text().rpartition(")")
    return before.partition("(")[2], after.split()


def proportional_kib(pid: int) -> int | None:
    """Memory of a process, what it shares counted in proportion (PSS); None where untold.

    Takes milliseconds, during which the process cannot map memory.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    lines = [line for line in text.splitlines() if line.startswith("Pss:")]
    return int(lines[0].split()[1]) if lines else None


def machine_busy_s() -> float:
    """Processor seconds that the whole machine has been busy since it started."""
    with Path("/proc/stat").open() as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_S


def machine() -> dict[str, str | int]:
    """What figures depend on: processor, cores that may be used, versions."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version for name in _PACKAGES if (version := _version(name))},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
