"""``serd status``: how a running daemon is."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from serd.commands.common import Output, PeerError, config_options, output
from serd.config.loading import load

_TIMEOUT_S = 5.0
_NOT_READY = 1

Json = dict[str, Any]


class Sample(NamedTuple):
    """One number of the metrics."""

    name: str
    labels: dict[str, str]
    value: float


class Figures:
    """The samples of one scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._samples = [
            Sample(sample.name, dict(sample.labels), float(sample.value))
            for family in families
            for sample in family.samples
        ]

    def of(self, name: str, **labels: str) -> Iterator[Sample]:
        """Samples of a metric that carry these labels."""
        for sample in self._samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample

    def sum(self, name: str, **labels: str) -> float:
        """The sum of them, 0 for none."""
        return sum(sample.value for sample in self.of(name, **labels))

    def by(self, name: str, label: str) -> dict[str, float]:
        """Their values by one of their labels, without those that are 0."""
        return {sample.labels[label]: sample.value for sample in self.of(name) if sample.value}

    def quantile(self, name: str, q: float, **labels: str) -> float | None:
        """Upper bound of the bucket that a quantile falls into; None without observations."""
        buckets = sorted(
            (float(sample.labels["le"]), sample.value)
            for sample in self.of(f"{name}_bucket", **labels)
        )
        if not buckets or not buckets[-1][1]:
            return None
        return next(bound for bound, count in buckets if count >= q * buckets[-1][1])


@click.command("status", short_help="Tell how a running daemon is.")
@click.option(
    "--url",
    metavar="URL",
    help="Where the daemon serves its metrics; by default what metrics.bind of the configuration"
    " says.",
)
@config_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    url: str | None,
    config_path: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Tell how a running daemon is: whether it is ready, its load, and what it has lost.

    The exit status is 0 when the daemon is ready, 1 when it is not, and 69 when none answers.
    Figures count from the daemon's start.

    \b
    Examples:
      serd status
      serd status --config /etc/serd/serd.toml
      serd status --url http://127.0.0.1:9464 --json | jq .ready
    """
    if url is None:
        bind = load(config_path, overrides).metrics.bind
        if not bind:
            raise PeerError(
                "metrics_off", 'metrics.bind is "" in this configuration: there is nothing to ask'
            )
        url = f"http://{bind}"
    url = url.rstrip("/")
    health = _health(url)
    figures = Figures(text_string_to_metric_families(_get(f"{url}/metrics")[1]))
    if as_json:
        click.echo(json.dumps({**health, "figures": _summary(figures)}))
    else:
        _print(output(), health, figures)
    ctx.exit(os.EX_OK if health["ready"] else _NOT_READY)


def _get(url: str) -> tuple[int, str]:
    # A proxy of the environment has no business between an operator and a loopback address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise PeerError(
            "daemon_unreachable",
            f"no daemon answers at {url}: {reason}. Is it running (systemctl status serd), and is"
            " this its metrics.bind?",
        ) from None


def _health(url: str) -> Json:
    _, text = _get(f"{url}/health/ready")
    try:
        document = json.loads(text)
        document["ready"]
    except (ValueError, KeyError, TypeError):
        raise PeerError("not_serd", f"what answers at {url} is not a serd daemon") from None
    return dict(document)


def _summary(figures: Figures) -> Json:
    """The figures that people ask for first."""
    latency = "serd_segment_latency_seconds"
    return {
        "tap_messages": int(figures.sum("serd_tap_messages_total")),
        "events": int(figures.sum("serd_events_published_total")),
        "segments": int(figures.sum("serd_segments_scored_total")),
        "segments_dropped": _whole(figures.by("serd_segments_dropped_total", "reason")),
        "streams_refused": _whole(figures.by("serd_streams_refused_total", "reason")),
        "streams_shed": int(figures.sum("serd_streams_shed")),
        "messages_malformed": _whole(figures.by("serd_tap_messages_malformed_total", "reason")),
        "messages_lost": int(figures.sum("serd_tap_messages_lost_total")),
        "subscriber_overruns": int(figures.sum("serd_subscriber_overruns_total")),
        "latency_ms": {
            name: _ms(figures.quantile(latency, q, part="total"))
            for name, q in (("p50_at_most", 0.5), ("p99_at_most", 0.99))
        },
        "queues": {
            sample.labels["queue"]: {
                "depth": int(sample.value),
                "peak": int(figures.sum("serd_queue_peak", **sample.labels)),
                "capacity": int(figures.sum("serd_queue_capacity", **sample.labels)) or None,
            }
            for sample in figures.of("serd_queue_depth")
        },
        "cpu_s": round(figures.sum("process_cpu_seconds_total"), 2),
        "memory_mib": round(figures.sum("process_resident_memory_bytes") / 2**20, 1),
        "open_files": int(figures.sum("process_open_fds")),
    }


def _whole(values: dict[str, float]) -> dict[str, int]:
    return {name: int(value) for name, value in values.items()}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None or seconds == float("inf") else round(seconds * 1000, 1)


def _print(console: Output, health: Json, figures: Figures) -> None:
    word, style = ("ready", "bold green") if health["ready"] else ("not ready", "bold red")
    console.print(
        f"{health['name']} {health['version']}: {word}, up {_duration(health['uptime_s'])}",
        style=style,
    )
    for reason in health["reasons"]:
        console.print(f"  {reason['text']}", style="red")
    for warning in health["warnings"]:
        console.print(f"  {warning['text']}", style="yellow")
    summary = _summary(figures)
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_row("model", f"{health['model']} on {health['provider']}")
    table.add_row("detector", health["vad"])
    shed = f", {summary['streams_shed']} left out" if summary["streams_shed"] else ""
    table.add_row("streams", f"{health['streams']} of {health['max_streams']}{shed}")
    table.add_row(
        "so far",
        f"{summary['tap_messages']:,} messages, {summary['segments']:,} segments,"
        f" {summary['events']:,} events",
    )
    p50, p99 = (summary["latency_ms"][name] for name in ("p50_at_most", "p99_at_most"))
    if p50 is not None:
        worst = "more than 5 s" if p99 is None else f"{p99:g} ms"
        table.add_row("latency", f"half within {p50:g} ms, 99 % within {worst}")
    table.add_row("lost or refused", _losses(summary) or "nothing")
    for name, queue in summary["queues"].items():
        room = f" of {queue['capacity']:,}" if queue["capacity"] else ""
        table.add_row(f"queue {name}", f"{queue['depth']:,}{room}, at most {queue['peak']:,}")
    table.add_row(
        "process",
        f"{summary['cpu_s']:,} s of processor, {summary['memory_mib']:g} MiB,"
        f" {summary['open_files']} files",
    )
    console.print(table)


def _losses(summary: Json) -> str:
    parts = []
    for key, what in (
        ("segments_dropped", "segments"),
        ("streams_refused", "streams"),
        ("messages_malformed", "messages"),
    ):
        parts += [f"{count:,} {what} ({reason})" for reason, count in summary[key].items()]
    if summary["messages_lost"]:
        parts.append(f"{summary['messages_lost']:,} messages on the way")
    if summary["subscriber_overruns"]:
        parts.append(f"{summary['subscriber_overruns']:,} overruns of slow subscribers")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{n} {unit}" for n, unit in parts if n]
    return " ".join(shown[:2]) or "0 s"
