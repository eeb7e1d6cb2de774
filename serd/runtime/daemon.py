"""The composition root: builds every part, starts them in order, stops them in reverse.

``starting → ready → draining → stopped``. Ready means: sockets bound, models loaded, warmed up
and running on the device that was asked for. Draining means: sources stop, rows flush, batches
finish, events leave.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Literal

import structlog
import zmq

import serd
from serd.channel import Channel, Overflow, Waker
from serd.clock import Clock, SystemClock
from serd.config.schema import Config
from serd.errors import SerdError
from serd.protocol.events import DaemonEvent, Event
from serd.runtime import collector
from serd.runtime.pipeline import Pipeline
from serd.runtime.sources import make_sources
from serd.runtime.systemd import Notifier
from serd.sinks.publisher import Publisher, PublisherOptions
from serd.sinks.ring import EventRing
from serd.sinks.stamper import new_run_id
from serd.sources.zmq import ZmqSource
from serd.threads import hand_over_sooner

_log = structlog.get_logger(__name__)

# Events between the stages and the publisher. A full channel makes the stages wait, which fills
# the inference queue, which has a policy of its own.
_EVENT_CHANNEL = 10_000

State = Literal["ready", "heartbeat", "draining", "stopped"]


class Daemon:
    """One running serd.

    Parameters
    ----------
    config
        Checked configuration.
    clock
        Driven by tests.
    notifier
        Tells the service manager; the environment's by default.

    Examples
    --------
    In a process of its own, ``Daemon(config).run()``; in a test::

        daemon = Daemon(config)
        daemon.start()
        ... daemon.endpoints ...
        daemon.stop()
    """

    def __init__(
        self, config: Config, clock: Clock | None = None, notifier: Notifier | None = None
    ) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._notifier = notifier or Notifier()
        self._started_ns = self._clock.monotonic_ns()
        self._wanted_stop = threading.Event()
        self._failure: BaseException | None = None
        self._told_malformed: dict[str, int] = {}
        self._undo: list[Callable[[], object]] = []
        self._pipeline: Pipeline | None = None
        self._publisher: Publisher | None = None
        self._sources_zmq: list[ZmqSource] = []
        self.run_id = new_run_id()
        self.drained = True

    def start(self) -> None:
        """Build and start everything; returns when ready.

        Raises
        ------
        SerdError
            What stands in the way; nothing is left running.
        """
        self._notifier.notify(STATUS="starting")
        try:
            self._start()
        except BaseException:
            self._unwind()
            raise

    def _start(self) -> None:
        config = self._config
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._undo.append(context.term)
        waker = Waker()
        self._undo.append(waker.close)
        self._events: Channel[Event] = Channel("events", _EVENT_CHANNEL, Overflow.BLOCK, waker)
        sources = make_sources(config, context, self._clock)
        self._sources_zmq = [source for source in sources if isinstance(source, ZmqSource)]
        pipeline = Pipeline(
            config, sources, self._put, self._clock, self._all_finished, self._failed
        )
        publish = config.publish
        publisher = Publisher(
            PublisherOptions(
                bind=publish.bind,
                replay_bind=publish.replay_bind,
                send_hwm=publish.send_hwm,
            ),
            self._events,
            waker,
            self._clock,
            self.run_id,
            EventRing(publish.keep_events),
            context,
        )
        publisher.start()
        self._undo.append(lambda: publisher.stop(config.daemon.drain_timeout_s))
        self._publisher, self._pipeline = publisher, pipeline
        pipeline.start()
        self._tell("ready")
        _log.info(
            "ready",
            name=config.daemon.name,
            version=serd.__version__,
            run_id=self.run_id,
            model=pipeline.model.identity,
            provider=pipeline.model.provider,
            provider_reason=pipeline.model.provider_reason or "as configured",
            vad=pipeline.vad_name,
            sources=self.source_endpoints,
            publish=list(self.endpoints),
            replay=list(self.replay_endpoints),
        )
        if config.vad.detector == "auto" and pipeline.vad_name != "silero":
            _log.warning(
                "vad.fallback",
                detector=pipeline.vad_name,
                why="silero's network is not installed: pip install 'serd[silero]'",
            )
        self._notifier.notify(READY="1", STATUS=self._status())

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where events are published; real ports where ``*`` was asked for."""
        assert self._publisher is not None, "not started"
        return tuple(self._publisher.endpoints)

    @property
    def replay_endpoints(self) -> tuple[str, ...]:
        """Where events can be asked for again."""
        assert self._publisher is not None, "not started"
        return tuple(self._publisher.replay_endpoints)

    @property
    def source_endpoints(self) -> dict[str, list[str]]:
        """Endpoints of every ZeroMQ source, by its name."""
        return {source.name: source.endpoints for source in self._sources_zmq}

    def run(self) -> int:
        """Start, serve until SIGTERM or SIGINT, drain, and return the exit status.

        Raises
        ------
        SerdError
            The daemon cannot start.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self.start()
        # Here and not in start(): both concern the whole process.
        collector.settle()
        hand_over_sooner()
        self._serve()
        self.stop()
        if isinstance(self._failure, SerdError):
            return self._failure.exit_code
        return os.EX_OK if self._failure is None else os.EX_SOFTWARE

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._wanted_stop.set()

    def _serve(self) -> None:
        heartbeat_s = self._config.daemon.heartbeat_s
        watchdog_s = self._notifier.watchdog_s
        tick_s = min(heartbeat_s, watchdog_s / 2) if watchdog_s else heartbeat_s
        beat_ns = self._clock.monotonic_ns()
        while not self._wanted_stop.wait(tick_s):
            publisher = self._publisher
            if publisher is not None and not publisher.alive:
                # Nobody takes events any more: let those who wait to hand theirs over go.
                self._events.close()
                self._failed(publisher.failure or RuntimeError("the publisher has ended"))
                return
            self._notifier.notify(WATCHDOG="1")
            now_ns = self._clock.monotonic_ns()
            if now_ns - beat_ns >= heartbeat_s * 0.999e9:
                beat_ns = now_ns
                self.heartbeat()

    def heartbeat(self) -> None:
        """Tell subscribers, the service manager and the log how things are."""
        self._tell("heartbeat")
        self._notifier.notify(STATUS=self._status())
        malformed = {name: count for name, count in self.counts().items() if ".malformed." in name}
        if malformed != self._told_malformed:
            # Once a heartbeat at most, or a broken tap would fill the disk with its mistakes.
            _log.warning("tap.malformed", **malformed)
            self._told_malformed = malformed

    def stop(self) -> None:
        """Drain and stop, in reverse order of the start. Does nothing if not running."""
        if self._pipeline is None or self._publisher is None:
            return
        timeout_s = self._config.daemon.drain_timeout_s
        self._notifier.notify(STOPPING="1", STATUS="draining")
        self._tell("draining")
        _log.info("draining", streams=self._pipeline.table.streams)
        self.drained = self._pipeline.stop(timeout_s)
        self._tell("stopped")
        self._pipeline = None
        self._unwind()
        log = _log.info if self.drained else _log.warning
        log("stopped", drained=self.drained)

    def _unwind(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _put(self, event: Event) -> None:
        self._events.put(event)

    def _all_finished(self) -> None:
        _log.info("sources.finished")

    def _failed(self, error: BaseException) -> None:
        # A stage is gone: half a daemon helps nobody. The service manager starts a whole one.
        self._failure = error
        self._wanted_stop.set()

    def counts(self) -> dict[str, int]:
        """Every counter of the daemon, by name."""
        assert self._pipeline is not None, "not started"
        assert self._publisher is not None, "not started"
        publisher = {f"publish.{name}": n for name, n in self._publisher.counts().items()}
        return {**self._pipeline.counts(), **publisher, "events.peak": self._events.peak}

    def _tell(self, state: State) -> None:
        pipeline = self._pipeline
        assert pipeline is not None, "not started"
        self._events.put(
            DaemonEvent(
                state=state,
                name=self._config.daemon.name,
                version=serd.__version__,
                run_id=self.run_id,
                uptime_s=round((self._clock.monotonic_ns() - self._started_ns) / 1e9, 3),
                streams=pipeline.table.streams,
                model=pipeline.model.identity,
                provider=pipeline.model.provider,
                vad=pipeline.vad_name,
                counts=self.counts(),
            )
        )

    def _status(self) -> str:
        pipeline = self._pipeline
        assert pipeline is not None, "not started"
        return (
            f"{pipeline.table.streams} streams, {pipeline.model.identity} on "
            f"{pipeline.model.provider}"
        )
