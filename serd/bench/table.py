"""A report for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from serd.bench.charts import machine_text
from serd.bench.figures import Distribution, Report


def verdict(report: Report) -> Text:
    """One line: whether it held, or why not."""
    if not report.valid:
        late = report.lateness_ms
        return Text(
            f"no result: the load generator could not keep up ({_ms(late.p99)} late at the 99th"
            f" percentile, {_ms(late.max)} at worst): the machine is too busy",
            style="bold yellow",
        )
    if report.held:
        return Text(
            f"{_count(report.streams)} held: nothing lost, 99th percentile of the latency"
            f" {_ms(report.latency_ms.p99)}, bound {_ms(report.bound_ms)}",
            style="bold green",
        )
    return Text(
        f"{_count(report.streams)} not held: " + "; ".join(report.problems), style="bold red"
    )


def table(report: Report) -> Table:
    """All figures of a run."""
    rows = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows.add_column(style="dim")
    rows.add_column()
    for name, value in _rows(report):
        rows.add_row(name, value)
    return rows


def _rows(report: Report) -> list[tuple[str, str]]:
    messages, events, cpu, memory = report.messages, report.events, report.cpu, report.memory
    rows = [
        (
            "streams",
            f"{report.streams}, {report.encoding} in messages of 20 ms to {report.socket},"
            f" speech {report.speech_share:.0%} of the time",
        ),
        (
            "messages",
            _joined(
                f"{messages.sent} sent, {messages.received} received, {messages.lost} lost",
                f"{messages.dropped_by_taps} not taken" if messages.dropped_by_taps else "",
                f"{messages.withheld} lost on purpose" if messages.withheld else "",
                f"{messages.suppressed} suppressed as silence" if messages.suppressed else "",
            ),
        ),
        (
            "gaps",
            _joined(
                *(
                    f"{reason}: {gap.events} events, {gap.lost_ms:.0f} ms on {gap.streams} streams"
                    for reason, gap in sorted(report.gaps.items())
                )
            )
            or "none",
        ),
        (
            "emotion events",
            _joined(
                f"{events.expected} expected, {events.received} received",
                f"{events.missing} missing, {events.unexpected} unexpected"
                if events.exact
                else "positions not compared",
            ),
        ),
        ("latency", _distribution(report.latency_ms)),
        (
            "  from a segment's last sample, while speech goes on",
            _distribution(report.while_speaking_ms),
        ),
        (
            "daemon",
            f"{cpu.daemon:.3f} cores"
            + (
                ""
                if cpu.compute_share is None
                else f", {cpu.compute_share:.0%} of it in onnxruntime"
                f" (detector {cpu.vad_share:.0%}, model {cpu.inference_share:.0%})"
            ),
        ),
        (
            "  by thread",
            ", ".join(
                f"{name} {cores:.3f}"
                for name, cores in sorted(cpu.threads.items(), key=lambda item: -item[1])
                if cores >= 0.0005
            ),
        ),
        (
            "load generator",
            f"{cpu.generator:.3f} cores ({cpu.generator_us_per_message:.2f} µs a"
            f" message), late {_ms(report.lateness_ms.p99)} (99 %), {_ms(report.lateness_ms.max)}"
            " (worst)",
        ),
        ("subscriber; others", f"{cpu.subscriber:.3f}; {cpu.others:.3f} cores"),
        (
            "memory",
            f"{memory.one_stream_kib / 1024:.1f} MiB with one stream,"
            f" {memory.all_streams_kib / 1024:.1f} MiB with all"
            + (
                ""
                if memory.per_stream_kib is None
                else f": {memory.per_stream_kib:.0f} KiB a stream beyond the first"
            ),
        ),
        (
            "queue peaks",
            ", ".join(f"{name} {peak}" for name, peak in report.queue_peaks.items()) or "none told",
        ),
    ]
    if (surge := report.surge) is not None:
        rows += [
            (
                "surge",
                f"{surge.streams} more streams; shed: {surge.streams_shed} streams,"
                f" {surge.shed_ms / 1000:.0f} s; of those that were there before:"
                f" {surge.ordinary_streams_shed} streams, {surge.ordinary_shed_ms / 1000:.1f} s",
            ),
            ("  latency before", _distribution(surge.before_ms)),
            (
                "  during",
                f"{_distribution(surge.during_ms)};"
                f" {_ms(surge.worst_second_ms)} (99 %) in the worst second",
            ),
            ("  after", _distribution(surge.after_ms)),
            (
                "  recovered",
                "not by the end"
                if surge.recovered_s is None
                else f"{surge.recovered_s:.1f} s after it left",
            ),
        ]
    return [*rows, ("machine", machine_text(report))]


def probes(reports: Sequence[Report]) -> Table:
    """Several runs, a line each."""
    rows = Table(box=None, padding=(0, 2, 0, 0))
    for name in (
        "streams",
        "held",
        "p50 ms",
        "p99 ms",
        "max ms",
        "lost",
        "missing",
        "daemon cores",
        "with generator",
        "in onnxruntime",
        "KiB a stream",
    ):
        rows.add_column(name, justify="right")
    for report in reports:
        cpu, latency = report.cpu, report.latency_ms
        rows.add_row(
            str(report.streams),
            "no result" if not report.valid else "yes" if report.held else "no",
            _number(latency.p50),
            _number(latency.p99),
            _number(latency.max),
            str(report.messages.lost),
            _number(report.events.missing),
            f"{cpu.daemon:.3f}",
            f"{cpu.daemon + cpu.generator + cpu.subscriber:.3f}",
            "" if cpu.compute_share is None else f"{cpu.compute_share:.0%}",
            _number(report.memory.per_stream_kib),
        )
    return rows


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _distribution(found: Distribution) -> str:
    if not found.count:
        return "no event"
    return (
        f"{_ms(found.p50)} (median), {_ms(found.p95)} (95 %), {_ms(found.p99)} (99 %),"
        f" {_ms(found.max)} (worst) of {found.count}"
    )


def _count(streams: int) -> str:
    return "1 stream" if streams == 1 else f"{streams} streams"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _ms(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.1f} ms"
