"""The composition root: builds every part, starts them in order, stops them in reverse.

``starting → ready → draining → stopped``. Ready means: sockets bound, models loaded, warmed up
and running on the device that was asked for. Draining means: sources stop, rows flush, batches
finish, events leave.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Literal

import structlog
import zmq

import serd
from serd.channel import Channel, Overflow, Waker
from serd.clock import Clock, SystemClock
from serd.config.schema import Config
from serd.errors import SerdError
from serd.protocol.events import DaemonEvent, Event
from serd.pulse import Pulse
from serd.runtime import collector
from serd.runtime.journalling import make_ring, open_journal
from serd.runtime.live import declare_live
from serd.runtime.mainloop import MainLoop
from serd.runtime.models import Models
from serd.runtime.monitor import Monitor
from serd.runtime.operator import open_control, serve
from serd.runtime.pipeline import Pipeline
from serd.runtime.reload import Reloaded, Reloader
from serd.runtime.secrecy import forbid_core_dumps
from serd.runtime.security import Security
from serd.runtime.sources import make_sources
from serd.runtime.systemd import Notifier
from serd.runtime.watchdog import Watchdog, patience_s
from serd.runtime.witness import Witness
from serd.sinks.journal.writer import Journal
from serd.sinks.publisher import Publisher, PublisherOptions
from serd.sinks.stamper import new_run_id
from serd.sinks.subscribers import SubscriberLimits
from serd.sources.zmq import ZmqSource
from serd.threads import hand_over_sooner

_log = structlog.get_logger(__name__)

# Events between the stages and the publisher. A full channel makes the stages wait, which fills
# the inference queue, which has a policy of its own.
_EVENT_CHANNEL = 10_000
# Events that wait to be published, beyond which those of a shadow model are left out.
_CROWDED = _EVENT_CHANNEL // 10

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
    reread
        Reads the configuration anew for `reload`; `config` itself by default.

    Attributes
    ----------
    pulse
        Which stages move.
    reloader
        Keeps the configuration in force; parts declare there which keys they can take under way.

    Examples
    --------
    In a process of its own, ``Daemon(config).run()``; in a test::

        daemon = Daemon(config)
        daemon.start()
        ... daemon.endpoints ...
        daemon.stop()
    """

    def __init__(
        self,
        config: Config,
        clock: Clock | None = None,
        notifier: Notifier | None = None,
        reread: Callable[[], Config] | None = None,
    ) -> None:
        self.reloader = Reloader(config, reread or (lambda: config))
        self._clock = clock or SystemClock()
        self._notifier = notifier or Notifier()
        self.pulse = Pulse(patience_s(self._notifier))
        self._started_ns = self._clock.monotonic_ns()
        self._watchdog = Watchdog(self.pulse, self._notifier)
        self._last_reload = Reloaded()
        self._stuck: tuple[str, ...] = ()
        self._loop = MainLoop()
        self._failure: BaseException | None = None
        self._told_malformed: dict[str, int] = {}
        self._undo: list[Callable[[], object]] = []
        self._pipeline: Pipeline | None = None
        self._publisher: Publisher | None = None
        self.journal: Journal | None = None
        self._sources_zmq: list[ZmqSource] = []
        self.run_id = new_run_id()
        self._monitor = Monitor(config, self.run_id, self._clock, self.pulse)
        self.witness = Witness(config, self.run_id, self._clock)
        self.drained = True

    @property
    def _config(self) -> Config:
        return self.reloader.config

    def start(self) -> None:
        """Build and start everything; returns when ready.

        Raises
        ------
        SerdError
            What stands in the way; nothing is left running.
        """
        self._notifier.notify(STATUS=f"starting, loading {self._config.inference.model}")
        try:
            self._start()
        except BaseException:
            self._unwind()
            raise

    def _start(self) -> None:
        config = self._config
        # First, because it is what a second daemon by mistake is refused for.
        journal = self.journal = open_journal(config, self._clock, self.run_id)
        if journal is not None:
            self._undo.append(lambda: journal.close(self._config.daemon.drain_timeout_s))
        self.witness.start()
        self._undo.append(self.witness.log.stop)
        self._monitor.start()
        self._undo.append(self._monitor.stop)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._undo.append(context.term)
        waker = Waker()
        self._undo.append(waker.close)
        self._events: Channel[Event] = Channel("events", _EVENT_CHANNEL, Overflow.BLOCK, waker)
        security = Security(config, context, self._clock, self.witness.peer_refused)
        security.start()
        # After every socket that it watches.
        self._undo.append(security.stop)
        self._security = security
        sources = make_sources(config, context, self._clock, security.door)
        self._sources_zmq = [source for source in sources if isinstance(source, ZmqSource)]
        control = open_control(config)
        if control is not None:
            self._undo.append(control.stop)
        pipeline = Pipeline(
            config,
            sources,
            self._put,
            self._clock,
            self._all_finished,
            self._failed,
            self.pulse,
        )
        publish = config.publish
        publisher = Publisher(
            PublisherOptions(
                bind=publish.bind,
                replay_bind=publish.replay_bind,
                send_hwm=publish.send_hwm,
                max_wait_ms=config.journal.max_wait_ms,
            ),
            self._events,
            waker,
            self._clock,
            self.run_id,
            make_ring(config, journal),
            context,
            self.pulse,
            security.door,
            SubscriberLimits(config.limits.peer_subscriptions, config.limits.peer_replays_s),
            journal,
        )
        publisher.on_subscription = self.witness.subscription
        publisher.start()
        self._undo.append(lambda: publisher.stop(self._config.daemon.drain_timeout_s))
        self._publisher, self._pipeline = publisher, pipeline
        pipeline.start()
        self._models = Models(
            config, pipeline, self._put, self._clock, lambda: len(self._events) > _CROWDED
        )
        self._models.on_change = self.witness.model
        self._models.waiting = self._watchdog.feed
        self._loop.at_end(self._models.give_up)
        self._undo.append(self._models.stop)
        self._models.start()
        if control is not None:
            serve(control, self._models, self.counts)
        self._monitor.ready(pipeline, publisher, self._events, self.counts)
        declare_live(self.reloader, pipeline, publisher, security, self._models)
        self.witness.started(pipeline)
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
            metrics=self._monitor.url,
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

        SIGHUP reads the configuration anew, see `reload`.

        Raises
        ------
        SerdError
            The daemon cannot start.
        """
        forbid_core_dumps()
        self._loop.listen(self.reload)
        self.start()
        # Here and not in start(): both concern the whole process.
        collector.settle()
        hand_over_sooner()
        self._serve()
        self.stop()
        if isinstance(self._failure, SerdError):
            return self._failure.exit_code
        return os.EX_OK if self._failure is None else os.EX_SOFTWARE

    def on_main(self, request: Callable[[], object]) -> None:
        """Have something done by the thread that serves, soon. Any thread, any signal handler."""
        self._loop.call(request)

    def _serve(self) -> None:
        beat_ns = self._clock.monotonic_ns()
        while not self._loop.ended:
            heartbeat_s = self._config.daemon.heartbeat_s
            self._loop.wait(min(heartbeat_s, self._watchdog.tick_s))
            publisher = self._publisher
            if publisher is not None and not publisher.alive:
                # Nobody takes events any more: let those who wait to hand theirs over go.
                self._events.close()
                self._failed(publisher.failure or RuntimeError("the publisher has ended"))
                return
            stuck = self._watchdog.feed()
            if stuck != self._stuck:
                self._stuck = stuck
                self._notifier.notify(STATUS=self._status())
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

    def reload(self) -> Reloaded:
        """Read the configuration anew and put into force what can be without dropping a stream.

        Called by the thread that serves; from elsewhere by way of `on_main`.
        """
        self._notifier.notify(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))
        self._last_reload = self.reloader.reload()
        self.witness.reloaded(self._config, self._last_reload)
        self._notifier.notify(READY="1", STATUS=self._status())
        return self._last_reload

    def use_model(self, name: str) -> str:
        """Score with another model from the next batch on; see `Models.use`. Any thread."""
        return self._models.use(name)

    def stop(self) -> None:
        """Drain and stop, in reverse order of the start. Does nothing if not running."""
        if self._pipeline is None or self._publisher is None:
            return
        timeout_s = self._config.daemon.drain_timeout_s
        self._notifier.notify(STOPPING="1", STATUS="draining")
        self._tell("draining")
        _log.info("draining", streams=self._pipeline.table.streams)
        self._monitor.state = "draining"
        self._models.give_up()
        self.drained = self._pipeline.stop(timeout_s)
        self._models.stop()
        self._tell("stopped")
        self._monitor.stopped()
        self._pipeline = None
        self.witness.stopped(self.drained)
        self._unwind()
        log = _log.info if self.drained else _log.warning
        log("stopped", drained=self.drained)

    def _unwind(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _put(self, event: Event) -> None:
        self._monitor.note(event)
        self.witness.event(event)
        self._events.put(event)

    def _all_finished(self) -> None:
        _log.info("sources.finished")

    def _failed(self, error: BaseException) -> None:
        # A stage is gone: half a daemon helps nobody. The service manager starts a whole one.
        self._failure = error
        self._loop.end()

    def counts(self) -> dict[str, int]:
        """Every counter of the daemon, by name."""
        assert self._pipeline is not None, "not started"
        assert self._publisher is not None, "not started"
        publisher = {f"publish.{name}": n for name, n in self._publisher.counts().items()}
        security = {f"security.{name}": n for name, n in self._security.counts().items()}
        return {
            **self._pipeline.counts(),
            **self._models.counts(),
            **publisher,
            **self._publisher.journal_counts(),
            **security,
            **{f"audit.{name}": n for name, n in self.witness.log.counts().items()},
            "events.peak": self._events.peak,
        }

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
        parts = [
            f"{pipeline.table.streams} streams, {pipeline.model.identity} on "
            f"{pipeline.model.provider}"
        ]
        if self._stuck:
            parts.append("stuck: " + ", ".join(self._stuck))
        if self._last_reload.summary:
            parts.append(self._last_reload.summary)
        return "; ".join(parts)
