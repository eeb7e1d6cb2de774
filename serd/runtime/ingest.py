"""The ingest thread: polls every source and lets each do what is due."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog
import zmq

from serd.channel import Waker
from serd.clock import Clock
from serd.errors import SerdError, SourceError
from serd.pulse import Pulse
from serd.rows import RowPool
from serd.runtime.rhythm import rest_s
from serd.sources.base import Source
from serd.sources.intake import StreamTable
from serd.threads import name_thread

_log = structlog.get_logger(__name__)

_SWEEP_NS = 1_000_000_000
# What resting may add to the latency. In 8 ms 1,000 calls send 400 messages.
_LONGEST_S = 0.008


class IngestThread:
    """Owns every source, from `open` to `close`, and the intake.

    Parameters
    ----------
    on_work
        Called after every round in which audio may have reached the rows.
    on_finished
        Called once, when no source can ever bring anything again.
    on_failure
        Called when the thread dies.
    pulse
        Is told that the thread moves.

    Attributes
    ----------
    behind_ns
        For how long a source that cannot wait has had more to give than one round takes, 0 while
        rounds empty them all. How old the audio in a source's own queue is cannot be seen.
    processor_ns
        CPU time of the thread so far.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        table: StreamTable,
        pools: Sequence[RowPool],
        clock: Clock,
        on_work: Callable[[], None],
        on_finished: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        pulse: Pulse | None = None,
    ) -> None:
        self._pulse = pulse or Pulse()
        self._sources = list(sources)
        self._configured = tuple(source.name for source in sources)
        self._table = table
        self._pools = pools
        self._clock = clock
        self._on_work = on_work
        self._on_finished = on_finished
        self._on_failure = on_failure
        self._waker = Waker()
        self._opened = threading.Event()
        self._open_error: SerdError | None = None
        self._stopping = False
        self._emptied_ns = clock.monotonic_ns()
        self.behind_ns = 0
        self.processor_ns = 0
        self._thread = threading.Thread(target=self._run, name="serd-ingest", daemon=True)

    def start(self) -> None:
        """Open every source, in the thread that will own it, and begin.

        Raises
        ------
        BindError
            An endpoint cannot be bound. A source that is merely down is logged and left to its
            own retries.
        """
        self._thread.start()
        self._opened.wait()
        if self._open_error is not None:
            self._thread.join()
            raise self._open_error

    def stop(self, timeout_s: float) -> bool:
        """Close the sources and with them every stream; return whether the thread has ended."""
        self._stopping = True
        self._waker.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        name_thread("serd-ingest")
        try:
            self._open()
            if self._open_error is None:
                self._opened.set()
                self._loop()
        except BaseException as error:
            _log.exception("ingest.failed")
            self._on_failure(error)
        finally:
            for source in self._sources:
                source.close()
            self._opened.set()

    def _open(self) -> None:
        usable: list[Source] = []
        for source in self._sources:
            try:
                source.open(self._waker)
            except SourceError as error:
                _log.error("source.down", source=source.name, code=error.code, why=error.message)
                source.close()
            except SerdError as error:
                self._open_error = error
                return
            else:
                usable.append(source)
                _log.info("source.open", source=source.name)
        self._sources = usable

    def _loop(self) -> None:
        clock, table = self._clock, self._table
        registered: list[zmq.Socket[bytes] | int] = []
        poller = zmq.Poller()
        poller.register(self._waker.fileno(), zmq.POLLIN)
        swept_ns = clock.monotonic_ns()
        finished_told = False
        # It never says that it waits: a round comes every second, whatever happens.
        pulse = self._pulse.stage("ingest")
        while not self._stopping:
            pulse.beat()
            began = time.monotonic()
            now_ns = clock.monotonic_ns()
            table.flush_pending(now_ns)
            full = False
            due_ns = now_ns + _SWEEP_NS
            wanted: list[zmq.Socket[bytes] | int] = []
            running = False
            for source in self._sources:
                due = self._service(source, now_ns)
                if due is not None:
                    due_ns = min(due_ns, due)
                    full |= due <= now_ns and not source.lossless
                if not source.finished:
                    running = True
                    wanted.extend(source.pollables())
            if not full:
                self._emptied_ns = now_ns
            self.behind_ns = now_ns - self._emptied_ns
            waiting = self._still_waits(now_ns)
            self.processor_ns = time.thread_time_ns()
            self._on_work()
            if not running and not finished_told and not waiting:
                finished_told = True
                self._on_finished()
            if now_ns - swept_ns >= _SWEEP_NS:
                table.sweep(now_ns)
                swept_ns = now_ns
            if wanted != registered:
                for old in registered:
                    poller.unregister(old)
                for new in wanted:
                    poller.register(new, zmq.POLLIN)
                registered = wanted
            wait_ns = due_ns - clock.monotonic_ns()
            if wait_ns > 0 and not waiting:
                rest = rest_s(time.monotonic() - began, _LONGEST_S)
                time.sleep(min(rest, wait_ns / 1e9))
                wait_ns = due_ns - clock.monotonic_ns()
            # Rounded up: waking a little early would only mean to poll again.
            if wait_ns > 0 and poller.poll(-(-wait_ns // 1_000_000)):
                self._waker.clear()
        self._close_all()
        self._pulse.end(pulse)

    def _still_waits(self, now_ns: int) -> bool:
        """Whether audio waits for room; if so, the making of room will wake this thread."""
        if self._table.flush_pending(now_ns):
            return False
        for pool in self._pools:
            pool.on_room = self._waker.wake
        # Once more: room may have been made between the try and the asking.
        if self._table.flush_pending(now_ns):
            self._waker.wake()
            return False
        return True

    def _service(self, source: Source, now_ns: int) -> int | None:
        try:
            return source.service(now_ns, self._table)
        except SourceError as error:
            # The radius of this error: its source, and no other.
            _log.error("source.failed", source=source.name, code=error.code, why=error.message)
            self._table.close_source(source, error.code)
            source.close()
            self._sources = [other for other in self._sources if other is not source]
            return None

    def _close_all(self) -> None:
        for source in self._sources:
            # What has arrived is taken before the door is shut.
            self._service(source, self._clock.monotonic_ns())
            source.close()
            self._table.close_source(source, "draining")
        # What still waits for room was accepted, so it is not given up before its rows have it.
        while self._still_waits(self._clock.monotonic_ns()):
            self._on_work()
            self._waker.wait(1.0)
        self._on_work()

    def counts(self) -> dict[str, int]:
        """Counters of the intake and, by source, of every source; ``up`` is 0 once it failed."""
        merged = {f"intake.{name}": count for name, count in dict(self._table.counts).items()}
        up = list(self._sources)
        for source in up:
            for name, count in source.counts().items():
                merged[f"source.{source.name}.{name}"] = count
        in_use = {source.name for source in up}
        merged |= {f"source.{name}.up": int(name in in_use) for name in self._configured}
        return merged
