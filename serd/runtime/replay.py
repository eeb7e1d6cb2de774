"""Recordings through the whole pipeline, without sockets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serd.clock import Clock
from serd.config.schema import Config
from serd.protocol.events import Event
from serd.runtime.jobs import play_in_processes
from serd.runtime.player import play
from serd.sources.archive import Played
from serd.sources.file import MAX_CHANNELS
from serd.sources.recordings import Recording

# Processor time a second of telephone audio, against a window of 256: 1.33 with 16 rows, 1.09 with
# 64, 1.03 with 128. 256 rows take 35 MB more memory than 16 do.
WINDOW = 256
"""Rows in use at once; see `replay`."""

# A process takes a second to start, in which a pipeline plays ten recordings of a minute.
_RECORDINGS_A_JOB = 32


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is.

    Attributes
    ----------
    recordings
        Recordings that are over, those that failed included.
    audio_s
        Seconds of audio played, channels not counted.
    size
        Bytes of file that they stand for.
    """

    recordings: int
    audio_s: float
    size: float


@dataclass(slots=True)
class Summary:
    """What a replay came to.

    Attributes
    ----------
    recordings
        Recordings played to their ends.
    failed
        Recordings that could not be read, or not to their ends.
    audio_s
        Seconds of audio, channels not counted.
    wall_s
        Seconds it took, starting of processes and loading of models included.
    events
        Events given to `on_event`.
    interrupted
        Whether Ctrl-C ended it.
    counts
        Counters of the pipelines, added up.
    """

    recordings: int = 0
    failed: int = 0
    audio_s: float = 0.0
    wall_s: float = 0.0
    events: int = 0
    interrupted: bool = False
    counts: dict[str, int] = field(default_factory=dict)


def replay(
    recordings: Sequence[Recording],
    config: Config,
    on_event: Callable[[Event], None],
    *,
    realtime: bool = False,
    jobs: int | None = None,
    window: int = WINDOW,
    on_progress: Callable[[Progress], None] | None = None,
    on_problem: Callable[[str], None] | None = None,
    clock: Clock | None = None,
) -> Summary:
    """Play recordings through the pipeline and hand every event to `on_event`.

    Recordings are played side by side, so that the detector and the model see them in batches.
    The events of a stream are those that it has when it is played alone, in that order; events of
    different streams come mixed.

    Parameters
    ----------
    config
        As for the daemon; sources and publishing are not used.
    on_event
        One call at a time, from any thread.
    realtime
        At the speed of the recordings instead of as fast as possible: all begin at once, in this
        process.
    jobs
        Processes that share the recordings; None for one a core, if there are recordings enough.
    window
        Most rows (channels) in use at once by a process, at least 8: what memory and open files
        are bounded by, however many recordings there are.
    on_progress
        Called ten times a second and at the end.
    on_problem
        Called with a sentence for each recording that fails, from any thread.

    Raises
    ------
    ModelError, DeviceError
        The models cannot be used as configured.
    DaemonError
        A thread or a process of the pipeline died.
    """
    if realtime:
        jobs, window = 1, max(MAX_CHANNELS, MAX_CHANNELS * len(recordings))
    elif jobs is None:
        jobs = default_jobs(len(recordings), len(os.sched_getaffinity(0)))
    jobs = max(1, min(jobs, len(recordings)))
    summary = Summary()

    def emit(event: Event) -> None:
        summary.events += 1
        on_event(event)

    def played(recording: Played) -> None:
        if recording.problem is None:
            summary.recordings += 1
            return
        summary.failed += 1
        if on_problem is not None:
            on_problem(recording.problem)

    def tick(audio_s: float, size: float) -> None:
        summary.audio_s = audio_s
        if on_progress is not None:
            on_progress(Progress(summary.recordings + summary.failed, audio_s, size))

    began = time.monotonic()
    try:
        if jobs == 1:
            queue = iter(recordings)
            summary.counts = play(
                lambda: next(queue, None), window, config, emit, played, tick, realtime, clock
            )
        else:
            # No process may take more than its share at once and leave others without any.
            share = max(MAX_CHANNELS, -(-len(recordings) // jobs))
            summary.counts = play_in_processes(
                recordings, jobs, min(window, share), config, emit, played, tick
            )
    except KeyboardInterrupt:
        summary.interrupted = True
    summary.wall_s = time.monotonic() - began
    return summary


def default_jobs(recordings: int, cores: int) -> int:
    """Processes for so many recordings: one a core, if there are recordings enough for them."""
    return max(1, min(cores, recordings // _RECORDINGS_A_JOB))
