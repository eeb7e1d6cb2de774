"""Audio from any number of recordings, a bounded number of them at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from serd.channel import Waker
from serd.clock import Clock, SystemClock
from serd.errors import SourceError
from serd.sources.base import Intake
from serd.sources.file import MAX_CHANNELS, FileOptions, FileSource
from serd.sources.recordings import Recording

# How long a round may take: the speech stage is told of new audio only after it.
_ROUND_NS = 20_000_000
# The more recordings share the pipeline, the longer a row takes to make room for a read: at 3,000
# times real time the 2 s of n rows last n * 0.67 ms. Asking costs 2 µs a row.
_ROOM_RETRY_NS = 1_000_000
_ROOM_RETRY_EACH_NS = 200_000
_LEAST_READ_MS = 250


@dataclass(frozen=True, slots=True)
class Played:
    """A recording that is over.

    Attributes
    ----------
    audio_s
        Seconds that were played.
    problem
        Why not all of it was, or nothing; None where all is well.
    """

    recording: Recording
    audio_s: float
    problem: str | None = None


@dataclass(slots=True)
class _Playing:
    recording: Recording
    file: FileSource
    rows: int
    done_s: float = 0.0
    done_bytes: float = 0.0


class ArchiveSource:
    """Plays recordings side by side. Implements `serd.sources.base.Source`.

    Parameters
    ----------
    take
        Gives the next recording, None when there are no more. Called by the ingest thread.
    window
        Most rows (channels) in use at once, at least 8. A recording is opened when it fits, and
        its rows count until `stream_ended` was called for each of its streams.
    on_played
        Called by the ingest thread, once for every recording taken: also for one that could not
        be opened.
    realtime
        Whether audio comes at the pace at which it was recorded.
    clock
        See `FileSource`.

    Attributes
    ----------
    played_s, played_bytes
        Seconds of audio played so far, and bytes of file that they stand for. Any thread may
        read them.
    """

    def __init__(
        self,
        take: Callable[[], Recording | None],
        window: int,
        on_played: Callable[[Played], None],
        realtime: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if window < MAX_CHANNELS:
            raise ValueError(f"a window of {window} rows; at least {MAX_CHANNELS} are needed")
        self.played_s = 0.0
        self.played_bytes = 0.0
        self._take = take
        self._window = window
        self._on_played = on_played
        self._realtime = realtime
        self._clock = clock or SystemClock()
        self._waker: Waker | None = None
        self._next: _Playing | None = None
        self._exhausted = False
        # In the order in which they are to be served.
        self._open: deque[_Playing] = deque()
        # By stream id, those that still have a row.
        self._in_rows: dict[str, _Playing] = {}
        self._rows = 0
        self._recordings = 0
        self._ended: deque[str] = deque()

    @property
    def name(self) -> str:
        """The name that a file source has when nothing else is said."""
        return "file"

    @property
    def lossless(self) -> bool:
        """Files wait."""
        return True

    @property
    def finished(self) -> bool:
        """Whether all recordings have come to their ends, and their events have left."""
        return self._exhausted and self._next is None and not self._in_rows

    def stream_ended(self, stream: str) -> None:
        """Tell that the last event of a stream has left. Any thread."""
        self._ended.append(stream)
        if self._waker is not None:
            self._waker.wake()

    def open(self, waker: Waker) -> None:
        """Nothing is opened before its turn."""
        self._waker = waker

    def pollables(self) -> Sequence[zmq.Socket[bytes] | int]:
        """Nothing: files are always readable."""
        return ()

    def service(self, now_ns: int, intake: Intake) -> int | None:
        """Open what fits, then let every open recording push what it can."""
        self._settle()
        self._fill()
        until_ns = self._clock.monotonic_ns() + _ROUND_NS
        retry_ns = now_ns + _ROOM_RETRY_NS + len(self._open) * _ROOM_RETRY_EACH_NS
        due_ns: int | None = None
        for _ in range(len(self._open)):
            playing = self._open[0]
            due = self._serve(playing, now_ns, intake)
            if due is None:
                self._open.popleft()
            else:
                self._open.rotate(-1)
                if due > now_ns and not self._realtime:
                    due = retry_ns
                due_ns = due if due_ns is None else min(due_ns, due)
            if self._clock.monotonic_ns() >= until_ns:
                return now_ns
        # With nothing open, `stream_ended` wakes this thread.
        return due_ns

    def close(self) -> None:
        """Close all files."""
        if self._next is not None:
            self._next.file.close()
        for playing in self._open:
            playing.file.close()
        self._open.clear()
        self._in_rows.clear()
        self._next = None
        self._exhausted = True

    def counts(self) -> dict[str, int]:
        """Recordings that were opened."""
        return {"recordings": self._recordings}

    def _settle(self) -> None:
        """Count the rows of streams that have ended as free."""
        while self._ended:
            playing = self._in_rows.pop(self._ended.popleft(), None)
            if playing is None:
                continue
            self._rows -= 1
            playing.rows -= 1
            if not playing.rows:
                damage = playing.file.damage
                problem = None if damage is None else f"{playing.recording.path}: {damage}"
                self._on_played(Played(playing.recording, playing.done_s, problem))

    def _fill(self) -> None:
        # With a row left and not before: what this source holds back, no other can play.
        while self._rows < self._window:
            playing = self._next or self._open_next()
            if playing is None:
                return
            self._next = playing
            if self._rows + playing.rows > self._window:
                return
            self._next = None
            self._rows += playing.rows
            self._recordings += 1
            for stream in playing.file.streams:
                self._in_rows[stream] = playing
            self._open.append(playing)

    def _open_next(self) -> _Playing | None:
        """The next recording that can be opened."""
        while not self._exhausted:
            recording = self._take()
            if recording is None:
                self._exhausted = True
                break
            playing = self._opened(recording)
            if playing is not None:
                return playing
        return None

    def _opened(self, recording: Recording) -> _Playing | None:
        options = FileOptions(
            self.name,
            Path(recording.path),
            recording.stream,
            realtime=self._realtime,
            least_ms=_LEAST_READ_MS,
        )
        file = FileSource(options, self._clock, log_damage=False)
        assert self._waker is not None, "the ingest thread opens its sources first"
        try:
            file.open(self._waker)
        except SourceError as error:
            problem = error.message
        else:
            doubles = [stream for stream in file.streams if stream in self._in_rows]
            if not doubles:
                return _Playing(recording, file, len(file.streams))
            file.close()
            problem = f"{recording.path}: another recording is the stream {doubles[0]!r}"
        self.played_bytes += recording.size
        self._on_played(Played(recording, 0.0, problem))
        return None

    def _serve(self, playing: _Playing, now_ns: int, intake: Intake) -> int | None:
        file, size = playing.file, playing.recording.size
        due = file.service(now_ns, intake)
        self.played_s += file.position_s - playing.done_s
        playing.done_s = file.position_s
        # A file's length may be an estimate; at its end all of it is done.
        share = min(1.0, playing.done_s / file.duration_s) if file.duration_s else 0.0
        done_bytes = size if due is None else share * size
        self.played_bytes += done_bytes - playing.done_bytes
        playing.done_bytes = done_bytes
        return due
