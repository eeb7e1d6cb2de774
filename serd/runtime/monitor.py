"""Puts together what there is to tell about a running daemon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import serd
from serd.channel import Channel
from serd.clock import Clock
from serd.config.schema import Config
from serd.protocol.events import EmotionEvent, Event
from serd.runtime.health import HealthServer
from serd.runtime.histogram import LatencyRecorder, of_sizes
from serd.runtime.metrics import Observation, Queue
from serd.runtime.pipeline import Pipeline
from serd.sinks.publisher import Publisher


class Pulses(Protocol):
    """What is asked of the daemon's pulse."""

    def ages(self) -> Mapping[str, float]:
        """Seconds since each stage last went round."""
        ...

    def stuck(self) -> tuple[str, ...]:
        """Stages that stand still."""
        ...


class Monitor:
    """Observes a daemon for the metrics and the health of it.

    Parameters
    ----------
    config
        Sections ``daemon``, ``streams``, ``inference`` and ``metrics`` are used.

    Attributes
    ----------
    state
        ``starting``, ``ready``, ``draining`` or ``stopped``; the daemon sets it.
    """

    def __init__(self, config: Config, run_id: str, clock: Clock, pulses: Pulses) -> None:
        self._config = config
        self._run_id = run_id
        self._clock = clock
        self._pulses = pulses
        self._began_ns = clock.monotonic_ns()
        self._started_unix_s = clock.unix_ns() / 1e9
        self._latencies = LatencyRecorder()
        self._parts: tuple[Pipeline, Publisher, Channel[Event]] | None = None
        self._counts: Callable[[], Mapping[str, int]] = dict
        self._server = HealthServer(config.metrics.bind, self.observe)
        self.state = "starting"

    @property
    def url(self) -> str | None:
        """Where metrics and health are served, if they are."""
        return self._server.url

    def start(self) -> None:
        """Begin to answer: health is asked for while the models are still loading."""
        self._server.start()

    def ready(
        self,
        pipeline: Pipeline,
        publisher: Publisher,
        events: Channel[Event],
        counts: Callable[[], Mapping[str, int]],
    ) -> None:
        """Take in the parts, now that they run."""
        self._counts = counts
        self._parts = pipeline, publisher, events
        self.state = "ready"

    def stopped(self) -> None:
        """Let go of the parts."""
        self._parts = None
        self.state = "stopped"

    def stop(self) -> None:
        """Answer no more."""
        self._server.stop()

    def note(self, event: Event) -> None:
        """See every event of the stages on its way out."""
        if type(event) is EmotionEvent:
            self._latencies.note(event.latency_ms)

    def observe(self) -> Observation:
        """What the daemon is and does now. Any thread."""
        config, parts = self._config, self._parts
        seen = Observation(
            state=self.state,
            name=config.daemon.name,
            version=serd.__version__,
            run_id=self._run_id,
            started_unix_s=self._started_unix_s,
            uptime_s=(self._clock.monotonic_ns() - self._began_ns) / 1e9,
            max_streams=config.streams.max_streams,
            ages=self._pulses.ages(),
            stuck=self._pulses.stuck(),
            latencies=self._latencies.histograms(),
        )
        if parts is None:
            return seen
        pipeline, publisher, events = parts
        return replace(
            seen,
            streams=pipeline.table.streams,
            model=pipeline.model.identity,
            provider=pipeline.model.provider,
            vad=pipeline.vad_name,
            publisher_alive=publisher.alive,
            counts=self._counts(),
            queues=(
                Queue("events", len(events), events.capacity, events.dropped),
                Queue("inference", capacity=config.inference.queue_segments),
            ),
            batches=of_sizes(pipeline.batch_sizes()),
            journal_problem=publisher.journal.problem if publisher.journal is not None else None,
        )
