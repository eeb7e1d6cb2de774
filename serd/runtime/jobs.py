"""Recordings through several pipelines at once, each in a process of its own.

Python code of all threads of a process runs one at a time, and a pipeline keeps 1.6 cores busy. Of
an archive of 6.4 hours two processes on two cores played 2,100 to 2,200 times real time, one 1,900.

A process asks for the next recording when it has a free row for it, so none is idle while another
still has much to do. A stream is played by one process alone, so its events come in their order; a
process that has much to tell waits until it is heard, so nothing piles up.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess

import msgspec

from serd.config.schema import Config
from serd.errors import DaemonError, SerdError
from serd.protocol.events import Event
from serd.runtime import logs
from serd.runtime.player import TICK_S, interrupt_held, play
from serd.sources.archive import Played
from serd.sources.recordings import Recording

# Events leave a process in packets: one at a time would cost more than to make them.
_PACKET_EVENTS = 256
_STOP_S = 10.0

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Event]] = msgspec.msgpack.Decoder(list[Event])


@dataclass(frozen=True, slots=True)
class _Take:
    """A process wants a recording."""


@dataclass(frozen=True, slots=True)
class _Progress:
    played_s: float
    played_bytes: float


@dataclass(frozen=True, slots=True)
class _End:
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Failure:
    """What ended a process: the class, code and message of an error made for people."""

    kind: type[SerdError]
    code: str
    message: str


class _StopToldError(Exception):
    """The parent has told the process to stop."""


def play_in_processes(
    recordings: Sequence[Recording],
    jobs: int,
    window: int,
    config: Config,
    on_event: Callable[[Event], None],
    on_played: Callable[[Played], None],
    on_tick: Callable[[float, float], None],
) -> dict[str, int]:
    """As `serd.runtime.player.play`, by several processes; all calls come from this thread.

    Parameters
    ----------
    window
        Of each process.

    Raises
    ------
    DaemonError
        ``process_died``, and what `play` raises.
    """
    context = multiprocessing.get_context("spawn")
    left = iter(recordings)
    workers: list[_Worker] = []
    try:
        with interrupt_held() as interrupted:
            workers.extend(_Worker(context, left, window, config) for _ in range(jobs))
            while running := [worker for worker in workers if not worker.ended]:
                by_pipe = {worker.pipe: worker for worker in running}
                for pipe in wait(list(by_pipe), TICK_S):
                    by_pipe[pipe].hear(on_event, on_played)  # type: ignore[index]  # our own
                on_tick(
                    sum(worker.progress.played_s for worker in workers),
                    sum(worker.progress.played_bytes for worker in workers),
                )
                if interrupted.is_set():
                    raise KeyboardInterrupt
    except BaseException:
        # Of what is done when Ctrl-C comes nothing is lost.
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.hear_rest(on_event, on_played)
        raise
    finally:
        for worker in workers:
            worker.release()
    counts: dict[str, int] = {}
    for worker in workers:
        for name, count in worker.counts.items():
            counts[name] = counts.get(name, 0) + count
    return counts


class _Worker:
    """The parent's end of one process."""

    def __init__(
        self,
        context: SpawnContext,
        left: Iterator[Recording],
        window: int,
        config: Config,
    ) -> None:
        self.progress = _Progress(0.0, 0.0)
        self.counts: dict[str, int] = {}
        self.ended = False
        self.pipe, told = context.Pipe()
        given, self._give = context.Pipe(duplex=False)
        self._left = left
        self._process: SpawnProcess = context.Process(
            target=_work, args=(told, given, window, config), daemon=True
        )
        self._process.start()
        told.close()
        given.close()

    def hear(self, on_event: Callable[[Event], None], on_played: Callable[[Played], None]) -> None:
        """Take one message."""
        try:
            message = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.ended = True
            self._process.join(_STOP_S)
            status = self._process.exitcode
            raise DaemonError("process_died", f"a process died (status {status})") from None
        match message:
            case bytes():
                for event in _decoder.decode(message):
                    on_event(event)
            case _Take():
                self._give.send(next(self._left, None))
            case Played():
                on_played(message)
            case _Progress():
                self.progress = message
            case _End(counts):
                self.counts = counts
                self.ended = True
            case _Failure(kind, code, text):
                self.ended = True
                raise kind(code, text)

    def stop(self) -> None:
        """Tell it to stop."""
        self._left = iter(())
        if not self.ended:
            try:
                self.pipe.send(None)
            except OSError:
                self.ended = True

    def hear_rest(
        self, on_event: Callable[[Event], None], on_played: Callable[[Played], None]
    ) -> None:
        """Hear what it has to say until it ends, as long as it says anything."""
        while not self.ended and self.pipe.poll(_STOP_S):
            try:
                self.hear(on_event, on_played)
            except SerdError:
                return

    def release(self) -> None:
        """End it, by force if it did not end by itself."""
        if not self.ended:
            self._process.terminate()
        self._process.join(_STOP_S)
        self.pipe.close()
        self._give.close()


def _work(pipe: Connection, given: Connection, window: int, config: Config) -> None:
    """A process: plays what it is given, and tells the parent everything."""
    # Ctrl-C reaches all processes of a terminal; the parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure("warning" if config.logging.level == "info" else config.logging.level)
    teller = _Teller(pipe)

    def take() -> Recording | None:
        teller.tell(_Take())
        with _parent_needed():
            recording: Recording | None = given.recv()
        return recording

    def tick(played_s: float, played_bytes: float) -> None:
        teller.tell(_Progress(played_s, played_bytes))
        if pipe.poll():
            raise _StopToldError

    try:
        counts = play(take, window, config, teller.event, teller.tell, tick)
        teller.tell(_End(counts))
    except _StopToldError:
        teller.tell(_End({}))
    except SerdError as error:
        teller.tell(_Failure(type(error), error.code, error.message))


@contextmanager
def _parent_needed() -> Iterator[None]:
    """End the process, at once and silently, if its parent has gone: nobody waits for it."""
    try:
        yield
    except (EOFError, OSError):
        os._exit(os.EX_IOERR)


class _Teller:
    """Sends events in packets, and everything else behind the events that came before it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def event(self, event: Event) -> None:
        """Any thread."""
        with self._lock:
            self._events.append(event)
            if len(self._events) >= _PACKET_EVENTS:
                self._send_events()

    def tell(self, message: object) -> None:
        """Any thread."""
        with self._lock:
            self._send_events()
            self._send(message)

    def _send_events(self) -> None:
        if self._events:
            self._send(_encoder.encode(self._events))
            self._events.clear()

    def _send(self, message: object) -> None:
        with _parent_needed():
            self._pipe.send(message)
