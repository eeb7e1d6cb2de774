"""The daemon's state as Prometheus metrics, made when somebody asks for them.

Nothing here is called for an event or a message. The stages count for themselves; a scrape reads
those counts, and the names, labels and help texts of `serd.runtime.catalogue` are put to them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import prometheus_client
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from serd.runtime import catalogue
from serd.runtime.histogram import Histogram
from serd.runtime.process import ThreadTimes, process_metrics

STATES: Final = ("starting", "ready", "draining", "stopped")


@dataclass(frozen=True)
class Queue:
    """What of a queue the counts do not tell; `None` where it has no bound or drops nothing."""

    name: str
    depth: int | None = None
    capacity: int | None = None
    dropped: int | None = None


@dataclass(frozen=True)
class Observation:
    """What the daemon is and does at one moment.

    Attributes
    ----------
    state
        One of `STATES`.
    counts
        As `Daemon.counts` gives them; empty before the daemon is ready.
    queues
        Depths and bounds of the queues.
    ages
        Seconds since each stage last went round, 0 while it rightly waits.
    stuck
        Stages that have not gone round for too long.
    latencies
        ``wait``, ``inference`` and ``total``, in seconds.
    batches
        Segments that were run together.
    journal_problem
        What keeps events out of the journal, and what to do about it; None for nothing.
    """

    state: str
    name: str
    version: str
    run_id: str
    started_unix_s: float
    uptime_s: float
    max_streams: int
    streams: int = 0
    model: str = ""
    provider: str = ""
    vad: str = ""
    publisher_alive: bool = True
    counts: Mapping[str, int] = field(default_factory=dict)
    queues: tuple[Queue, ...] = ()
    ages: Mapping[str, float] = field(default_factory=dict)
    stuck: tuple[str, ...] = ()
    latencies: Mapping[str, Histogram] = field(default_factory=dict)
    batches: Histogram | None = None
    journal_problem: str | None = None


class _Families:
    """Metric families under construction, in the order of their first sample."""

    def __init__(self) -> None:
        self._families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        self._sums: dict[str, dict[tuple[str, ...], float]] = {}

    def declare(self, metric: str) -> None:
        """Show a metric, with its type and help, whether it has a value or not."""
        if metric in self._families:
            return
        kind, text = catalogue.KINDS[metric], catalogue.HELP[metric]
        labels = catalogue.LABELS[metric]
        family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        self._families[metric] = family(metric, text, labels=labels)
        self._sums[metric] = {}

    def add(self, metric: str, labels: Mapping[str, str], value: float) -> None:
        """Add to a sample."""
        self.declare(metric)
        key = tuple(labels[name] for name in catalogue.LABELS[metric])
        sums = self._sums[metric]
        sums[key] = sums.get(key, 0.0) + value

    def finish(self) -> Iterator[Metric]:
        """All of them, complete."""
        for metric, family in self._families.items():
            for labels, value in self._sums[metric].items():
                family.add_metric(labels, value)
            yield family


def from_counts(counts: Mapping[str, int], queues: Iterable[Queue] = ()) -> Iterator[Metric]:
    """Metrics of the daemon's counts, and of what of its queues the counts do not tell."""
    families = _Families()
    for row in catalogue.ROWS:
        families.declare(row.metric)
        fixed = dict(row.fixed)
        open_labels = [name for name in catalogue.LABELS[row.metric] if name not in fixed]
        if not open_labels and row.kind == "counter":
            families.add(row.metric, fixed, 0)
        for known in row.known:
            families.add(row.metric, {**fixed, open_labels[0]: known}, 0)
    of_queues = {
        f"queue.{queue.name}.{what}": count
        for queue in queues
        for what in ("depth", "capacity", "dropped")
        if (count := getattr(queue, what)) is not None
    }
    for name, count in {**counts, **of_queues}.items():
        metric, _, labels, scale = catalogue.find(name)
        families.add(metric, labels, count * scale)
    return families.finish()


class DaemonCollector(Collector):
    """Turns observations into metrics.

    Parameters
    ----------
    observe
        Called for every scrape, on the thread that serves it.
    """

    def __init__(self, observe: Callable[[], Observation]) -> None:
        self._observe = observe
        self._threads = ThreadTimes()

    def collect(self) -> Iterator[Metric]:
        """Every metric of the daemon and its process."""
        seen = self._observe()
        yield from _identity(seen)
        yield from from_counts(seen.counts, seen.queues)
        yield from self._stages(seen)
        latency = HistogramMetricFamily(
            "serd_segment_latency_seconds",
            "Time of a judged segment: wait for the model, inference, and total from the arrival"
            " of its last sample to its event.",
            labels=("part",),
        )
        for part, histogram in seen.latencies.items():
            latency.add_metric((part,), list(histogram.cumulative()), histogram.total)
        yield latency
        if seen.batches is not None:
            sizes = HistogramMetricFamily(
                "serd_batch_size_segments", "Segments that the model ran together."
            )
            sizes.add_metric((), list(seen.batches.cumulative()), seen.batches.total)
            yield sizes
        yield from process_metrics(seen.started_unix_s)

    def _stages(self, seen: Observation) -> Iterator[Metric]:
        cpu = CounterMetricFamily(
            "serd_stage_cpu_seconds", "Processor time of each stage's threads.", labels=("stage",)
        )
        for stage, seconds in self._threads.seconds().items():
            cpu.add_metric((stage,), seconds)
        yield cpu
        age = GaugeMetricFamily(
            "serd_stage_pulse_age_seconds",
            "Time since a stage last went round; 0 while it rightly waits.",
            labels=("stage",),
        )
        for stage, seconds in seen.ages.items():
            age.add_metric((stage,), seconds)
        yield age
        yield GaugeMetricFamily(
            "serd_stages_stuck", "Stages that stand still with work to do.", value=len(seen.stuck)
        )


def _identity(seen: Observation) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "serd_info",
        "Always 1; the labels tell what runs.",
        labels=("version", "model", "provider", "vad"),
    )
    info.add_metric((seen.version, seen.model, seen.provider, seen.vad), 1)
    yield info
    state = GaugeMetricFamily("serd_state", "1 for the state the daemon is in.", labels=("state",))
    for name in STATES:
        state.add_metric((name,), float(name == seen.state))
    yield state
    yield GaugeMetricFamily("serd_uptime_seconds", "Time since the start.", value=seen.uptime_s)
    yield GaugeMetricFamily("serd_streams", "Streams open now.", value=seen.streams)
    yield GaugeMetricFamily(
        "serd_streams_limit", "Streams that may be open at once.", value=seen.max_streams
    )


class Exposition:
    """The text that Prometheus reads.

    Parameters
    ----------
    observe
        As for `DaemonCollector`.
    """

    content_type: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, observe: Callable[[], Observation]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(DaemonCollector(observe))
        # One scrape at a time: a second one would only slow the first.
        self._lock = threading.Lock()

    def render(self) -> bytes:
        """Everything, as it is now."""
        with self._lock:
            return prometheus_client.generate_latest(self._registry)
