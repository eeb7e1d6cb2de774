"""One pipeline and the recordings that play through it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serd.clock import Clock, SystemClock
from serd.config.schema import Config
from serd.errors import DaemonError
from serd.protocol.events import Event, StreamEvent
from serd.runtime.pipeline import Pipeline
from serd.sources.archive import ArchiveSource, Played
from serd.sources.file import MAX_CHANNELS
from serd.sources.recordings import Recording

TICK_S = 0.1
_DRAIN_S = 3600.0
_INTERRUPTED_DRAIN_S = 1.0
# Nobody waits for the first result, and a batch of one costs a tenth more than a row of many.
_MAX_WAIT_MS = 20.0


def play(
    take: Callable[[], Recording | None],
    window: int,
    config: Config,
    on_event: Callable[[Event], None],
    on_played: Callable[[Played], None],
    on_tick: Callable[[float, float], None],
    realtime: bool = False,
    clock: Clock | None = None,
) -> dict[str, int]:
    """Play recordings side by side until there are no more.

    Parameters
    ----------
    take, window, on_played
        See `ArchiveSource`.
    config
        As for the daemon; sources and publishing are not used.
    on_event
        Called from the pipeline's threads, one call at a time, in order for each stream.
    on_tick
        Called by this thread ten times a second and at the end, with the seconds of audio played
        so far and the bytes of file that they stand for. What it raises ends the playing: sources
        stop, what is under way gets a second to finish, and the exception passes through.

    Returns
    -------
    dict
        Counters of the pipeline.

    Raises
    ------
    ModelError, DeviceError
        The models cannot be used as configured.
    DaemonError
        ``thread_died``.
    """
    clock = clock or SystemClock()
    archive = ArchiveSource(take, window, on_played, realtime, clock)
    over = threading.Event()
    failures: list[BaseException] = []

    def emit(event: Event) -> None:
        on_event(event)
        if isinstance(event, StreamEvent) and event.state in ("closed", "refused"):
            archive.stream_ended(event.stream)

    def failed(error: BaseException) -> None:
        failures.append(error)
        over.set()

    pipeline = Pipeline(_for_playing(config, window), [archive], emit, clock, over.set, failed)
    done = False
    try:
        with interrupt_held() as interrupted:
            pipeline.start()
            while not over.wait(TICK_S):
                on_tick(archive.played_s, archive.played_bytes)
                if interrupted.is_set():
                    raise KeyboardInterrupt
        done = not failures
    finally:
        # Also after Ctrl-C: threads still inside native code would abort the interpreter's end.
        pipeline.stop(_DRAIN_S if done else _INTERRUPTED_DRAIN_S)
        if not failures:
            on_tick(archive.played_s, archive.played_bytes)
    if failures:
        raise DaemonError("thread_died", f"the pipeline stopped: {failures[0]}") from failures[0]
    return pipeline.counts()


@contextmanager
def interrupt_held() -> Iterator[threading.Event]:
    """Set an event at Ctrl-C, for code that must not be left in the middle.

    Where Ctrl-C is ignored, and outside of the main thread, nothing is changed.
    """
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or before is signal.SIG_IGN:
        yield interrupted
        return
    signal.signal(signal.SIGINT, lambda _number, _frame: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _for_playing(config: Config, window: int) -> Config:
    # A stream's last event is told a moment before its row is given back.
    streams = config.streams.model_copy(update={"max_streams": window + MAX_CHANNELS})
    wait_ms = max(config.inference.max_wait_ms, _MAX_WAIT_MS)
    inference = config.inference.model_copy(update={"max_wait_ms": wait_ms})
    return config.model_copy(update={"streams": streams, "inference": inference})
