"""The charts of a bench: one run second by second, and runs against the number of streams."""

from __future__ import annotations

from collections.abc import Sequence

from serd.bench.figures import Report
from serd.bench.plot import Panel, Series, draw


def machine_text(report: Report) -> str:
    """What figures were measured on, in one line."""
    machine = report.machine
    names = [name for name in machine if name not in {"cpu", "cores", "kernel", "python"}]
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    versions = ", ".join(f"{name} {machine[name]}" for name in names)
    return (
        f"{cores} of {machine['cpu']}, Linux {machine['kernel']}, Python {machine['python']},"
        f" {versions}; load generator on the same cores; {report.daemon['model']} on"
        f" {report.daemon['provider'].removesuffix('ExecutionProvider')},"
        f" {report.daemon['vad']}"
    )


def run_chart(report: Report) -> str:
    """SVG of one run: processor time, latency and memory over time."""
    seconds = report.by_second
    label = "seconds"
    return draw(
        f"serd with {report.streams} live channels",
        [
            Panel(
                "daemon, cores",
                label,
                [Series("cores", [_at(s.at_s, s.daemon_cores) for s in seconds])],
            ),
            Panel(
                "latency of a segment, ms",
                label,
                [
                    Series("median", [(s.at_s, s.p50_ms) for s in seconds]),
                    Series("99 %", [(s.at_s, s.p99_ms) for s in seconds]),
                ],
                bound=report.bound_ms,
            ),
            Panel(
                "resident memory, MiB",
                label,
                [Series("MiB", [_at(s.at_s, s.resident_mib) for s in seconds])],
            ),
        ],
        machine_text(report),
    )


def curve_chart(reports: Sequence[Report]) -> str:
    """SVG of several runs: processor time, latency and memory against streams."""
    label = "live channels"
    first = reports[0]
    return draw(
        "serd against the number of live channels",
        [
            Panel(
                "processor, cores",
                label,
                [
                    Series("daemon", [_at(r.streams, r.cpu.daemon) for r in reports]),
                    Series("with load generator", [_at(r.streams, _cores(r)) for r in reports]),
                ],
                log_x=True,
            ),
            Panel(
                "latency of a segment, ms",
                label,
                [
                    Series("median", [(r.streams, _positive(r.latency_ms.p50)) for r in reports]),
                    Series("99 %", [(r.streams, _positive(r.latency_ms.p99)) for r in reports]),
                ],
                log_x=True,
                log_y=True,
                bound=first.bound_ms,
            ),
            Panel(
                "memory of the daemon, MiB",
                label,
                [Series("MiB", [_at(r.streams, r.memory.all_streams_kib / 1024) for r in reports])],
                log_x=True,
            ),
        ],
        machine_text(first),
    )


def _at(x: float, y: float) -> tuple[float, float | None]:
    return x, y


def _positive(value: float | None) -> float | None:
    return value if value and value > 0 else None


def _cores(report: Report) -> float:
    return report.cpu.daemon + report.cpu.generator + report.cpu.subscriber
