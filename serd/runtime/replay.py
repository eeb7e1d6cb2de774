"""Recordings through the whole pipeline, without sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from serd.clock import Clock, SystemClock
from serd.config.schema import Config
from serd.errors import DaemonError, InputError
from serd.protocol.events import Event
from serd.runtime.pipeline import Pipeline
from serd.sources.file import FileOptions, FileSource

_PROGRESS_S = 0.1


@dataclass(frozen=True, slots=True)
class Summary:
    """What a replay came to.

    Attributes
    ----------
    audio_s
        Seconds of audio, channels not counted.
    wall_s
        Seconds it took, loading of models not counted.
    events
        Events given to `on_event`.
    """

    audio_s: float
    wall_s: float
    events: int
    counts: dict[str, int]


def replay(
    paths: Sequence[Path],
    config: Config,
    on_event: Callable[[Event], None],
    realtime: bool = False,
    on_progress: Callable[[float, float], None] | None = None,
    clock: Clock | None = None,
) -> Summary:
    """Play recordings through the pipeline and hand every event to `on_event`.

    The stream id of a recording is its file name without its ending. Recordings are played side
    by side, so that the detector and the model see them in batches.

    Parameters
    ----------
    paths
        Audio files.
    config
        As for the daemon; sources and publishing are not used.
    on_event
        Called from the pipeline's threads, one call at a time.
    realtime
        At the speed of the recordings instead of as fast as possible.
    on_progress
        Called with the seconds of audio taken in so far and in total.

    Raises
    ------
    InputError
        A file is missing, is no audio, or two files give the same stream id.
    DaemonError
        A thread of the pipeline died.
    """
    clock = clock or SystemClock()
    total_s = sum(_duration_s(path) for path in paths)
    stems = [path.stem for path in paths]
    for stem in stems:
        if stems.count(stem) > 1:
            raise InputError(
                "same_stream", f"several recordings would be the stream {stem!r}: rename one"
            )
    sources = [
        FileSource(FileOptions(f"file-{number}", path, None, realtime), clock)
        for number, path in enumerate(paths)
    ]
    finished = threading.Event()
    failures: list[BaseException] = []
    events = 0

    def emit(event: Event) -> None:
        nonlocal events
        events += 1
        on_event(event)

    def failed(error: BaseException) -> None:
        failures.append(error)
        finished.set()

    pipeline = Pipeline(
        _with_room_for(config, len(paths)), sources, emit, clock, finished.set, failed
    )
    pipeline.start()
    began = time.monotonic()
    try:
        while not finished.wait(_PROGRESS_S):
            if on_progress is not None:
                on_progress(sum(source.position_s for source in sources), total_s)
    finally:
        # Also after Ctrl-C: threads still inside native code would abort the interpreter's end.
        pipeline.stop(timeout_s=3600.0 if finished.is_set() else 1.0)
    if failures:
        raise DaemonError("thread_died", f"the pipeline stopped: {failures[0]}") from failures[0]
    if on_progress is not None:
        on_progress(total_s, total_s)
    return Summary(total_s, time.monotonic() - began, events, pipeline.counts())


def _duration_s(path: Path) -> float:
    try:
        return float(soundfile.info(str(path)).duration)
    except (OSError, RuntimeError) as error:
        why = "no such file" if not path.exists() else "not audio that can be read"
        raise InputError("input_unreadable", f"{path}: {why}") from error


def _with_room_for(config: Config, files: int) -> Config:
    # No recording has more than 8 channels that are analysed; rows that stay unused cost nothing.
    streams = config.streams.model_copy(update={"max_streams": max(8 * files, 8)})
    return config.model_copy(update={"streams": streams})
