"""Streams as rows: what the ingest thread hands to the speech thread.

A `RowPool` holds every stream of one native rate. The ingest thread appends samples to a row and
queues *controls*, each bound to the ring index at which it takes effect: everything before the
index belongs to the time before the control. The speech thread consumes both in order, so that a
stream's opening, its gaps and its end fall on exact samples however the audio was cut into
messages and however far the two threads are apart.

Indexes
-------
*ring index*: samples written to a row since the process started, never reset, int64.
*source index*: position in the tap's own count and rate (``first_sample`` of the protocol). A
`Timeline` maps the first to the second and changes only at a control.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from serd.audio.ring import RingRows
from serd.types import BoolArray, Int16Array, Int64Array, Role, frame_samples

NO_LIMIT = np.iinfo(np.int64).max
_NS = 1_000_000_000
_Index = TypeVar("_Index", int, Int64Array)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What is known of one stream (one channel of a source stream)."""

    stream: str
    source: str
    channel: int
    channels: int
    sample_rate_hz: int
    encoding: str
    role: Role
    call_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Maps ring indexes of a row to source indexes.

    `ring` and `source` are the same moment. Integer arithmetic alone, so that it is exact after
    days.
    """

    ring: int
    source: int
    native_rate_hz: int
    source_rate_hz: int

    def source_index(self, ring: int) -> int:
        """Source index of a ring index, rounded to the nearest sample."""
        return self.source + _rescaled(ring - self.ring, self.native_rate_hz, self.source_rate_hz)

    def ring_index(self, source: int) -> int:
        """Ring index of a source index, rounded to the nearest sample."""
        return self.ring + _rescaled(source - self.source, self.source_rate_hz, self.native_rate_hz)


def _rescaled(samples: int, from_hz: int, to_hz: int) -> int:
    return samples if from_hz == to_hz else (samples * to_hz + from_hz // 2) // from_hz


@dataclass(frozen=True, slots=True)
class Gap:
    """Audio that never reached a row, in source indexes."""

    reason: str
    start: int
    end: int
    messages: int


@dataclass(frozen=True, slots=True)
class Open:
    """A stream begins in this row."""

    at: int
    info: StreamInfo
    timeline: Timeline


@dataclass(frozen=True, slots=True)
class Jump:
    """The stream goes on elsewhere in its own time; an open utterance ends with `reason`.

    `source` is where it ends before it does, as in all controls that end a run of audio: of a
    resampled stream the ring index alone tells that to the nearest sample only.
    """

    at: int
    source: int
    reason: str
    timeline: Timeline
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class Filled:
    """Silence follows in place of lost audio."""

    at: int
    gap: Gap


@dataclass(frozen=True, slots=True)
class Told:
    """Audio was dropped without a trace in the row (late messages)."""

    at: int
    gap: Gap


@dataclass(frozen=True, slots=True)
class Changed:
    """New metadata for the stream."""

    at: int
    info: StreamInfo


@dataclass(frozen=True, slots=True)
class Paused:
    """The tap asked not to be analysed from here on; an open utterance ends."""

    at: int
    source: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """Analysis goes on, on a new timeline."""

    at: int
    timeline: Timeline


@dataclass(frozen=True, slots=True)
class Close:
    """The stream ends here and the row is free again once it has been told."""

    at: int
    source: int
    reason: str
    refused: bool = False


Control = Open | Jump | Filled | Told | Changed | Paused | Resumed | Close


class RowPool:
    """Rows of one native rate, shared by the ingest thread (writer) and the speech thread (reader).

    Parameters
    ----------
    rate_hz
        Native rate, 8000 or 16000.
    rows
        Most streams at once.
    capacity
        Samples that a row holds; rounded up to whole frames.

    Attributes
    ----------
    ring
        The samples.
    active
        bool ``[rows]``: rows with a stream.
    patient
        bool ``[rows]``: rows whose source waits for room, so that the reader may let them wait
        too when the stages behind it are full.
    limit
        int64 ``[rows]``: ring index of the next control of a row, `NO_LIMIT` for none.

    Notes
    -----
    The reader takes a copy of ``ring.written`` *before* it looks at `limit`; the writer queues a
    control *before* it writes a sample that lies behind it. In this order the reader can never
    run past a control.
    """

    def __init__(self, rate_hz: int, rows: int, capacity: int) -> None:
        self.rate_hz = rate_hz
        self.rows = rows
        self.frame = frame_samples(rate_hz)
        self._frames = -(-capacity // self.frame)
        self.ring = RingRows(rows, self._frames * self.frame)
        self.active: BoolArray = np.zeros(rows, np.bool_)
        self.patient: BoolArray = np.zeros(rows, np.bool_)
        self.limit: Int64Array = np.full(rows, NO_LIMIT, np.int64)
        self.on_room: Callable[[], None] | None = None
        self._arrived_ns: Int64Array = np.zeros((rows, self._frames), np.int64)
        self._epoch_ns: Int64Array = np.zeros(rows, np.int64)
        self._controls: list[deque[Control]] = [deque() for _ in range(rows)]
        self._lock = threading.Lock()
        self._free: deque[int] = deque(range(rows))

    @property
    def capacity(self) -> int:
        """Samples that a row holds."""
        return self._frames * self.frame

    # writer's side

    def acquire(self) -> int | None:
        """Take a free row, or None when all are in use. Its `Open` must be the first control."""
        try:
            return self._free.popleft()
        except IndexError:
            return None

    def mark_arrival(self, row: int, before: int, after: int, now_ns: int) -> None:
        """Remember when the ring indexes ``[before, after)`` arrived, to the nearest frame."""
        cells = self._arrived_ns[row]
        for frame in range(before // self.frame, (after - 1) // self.frame + 1):
            cells[frame % self._frames] = now_ns

    def anchor(self, row: int, ring: int, unix_ns: int) -> None:
        """Note the wall time at which the sample of a ring index was captured."""
        self._epoch_ns[row] = unix_ns - self._span_ns(ring)

    def put(self, rows: Int64Array, starts: Int64Array, samples: Int16Array, now_ns: int) -> None:
        """Put a block of samples into each of many rows and remember when they arrived.

        They are nobody's yet: `publish` hands them to the reader.

        Parameters
        ----------
        rows, starts
            int64 ``[k]``: row and ring index of each block. Blocks of one row follow one another
            without a gap from ``ring.written`` on, and the row has room for them.
        samples
            int16 ``[k, n]``.
        """
        self.ring.scatter(rows, starts, samples)
        first = starts // self.frame
        last = (starts + (samples.shape[1] - 1)) // self.frame
        for step in range((samples.shape[1] - 2) // self.frame + 2):
            self._arrived_ns[rows, np.minimum(first + step, last) % self._frames] = now_ns

    def publish(self, rows: Int64Array, ends: Int64Array) -> None:
        """Hand what was `put` to the reader: rows int64 ``[k]``, no row twice, new `written`."""
        self.ring.written[rows] = ends

    def anchor_all(self, rows: Int64Array, rings: Int64Array, unix_ns: Int64Array) -> None:
        """`anchor` for many rows at once, int64 ``[k]`` each, no row twice."""
        self._epoch_ns[rows] = unix_ns - self._span_ns(rings)

    def control(self, row: int, control: Control) -> None:
        """Queue a control behind everything written so far."""
        with self._lock:
            queue = self._controls[row]
            queue.append(control)
            if len(queue) == 1:
                self.limit[row] = control.at
            self.active[row] = True

    def _span_ns(self, samples: _Index) -> _Index:
        """How long samples last; whole seconds apart, or int64 would overflow after 13 days."""
        seconds, rest = samples // self.rate_hz, samples % self.rate_hz
        return seconds * _NS + rest * _NS // self.rate_hz

    # reader's side

    def in_use(self) -> Int64Array:
        """Rows with a stream, int64 ``[k]``, in ascending order."""
        # Of a copy that nobody else writes to. `nonzero` counts first and fills then, and lets
        # other threads run meanwhile: with a row more at the second look, numpy before 2.2.4 writes
        # beyond the end of what it has allocated (https://github.com/numpy/numpy/pull/28361).
        return np.flatnonzero(self.active.copy())

    def any_patient(self) -> bool:
        """Whether any row with a stream is `patient`."""
        # Not by a mask as an index, which counts first as well.
        return bool((self.active & self.patient).any())

    def arrived_ns(self, row: int, end: int) -> int:
        """Monotonic time at which the sample before ring index `end` had arrived."""
        return int(self._arrived_ns[row, (end - 1) // self.frame % self._frames])

    def first_arrival_ns(self, rows: Int64Array, ends: Int64Array) -> int:
        """Earliest of the times at which, in each of `rows`, the sample before its end arrived.

        Parameters
        ----------
        rows, ends
            int64 ``[n]``, at least one; `ends` are ring indexes.
        """
        return int(self._arrived_ns[rows, (ends - 1) // self.frame % self._frames].min())

    def captured_ns(self, row: int, ring: int) -> int:
        """Unix time in ns at which the sample of a ring index was captured.

        Counted from the newest anchor, so that a tap whose clock drifts against its samples is
        followed.
        """
        return int(self._epoch_ns[row]) + self._span_ns(ring)

    def next_control(self, row: int) -> Control | None:
        """Remove and return the oldest control of a row."""
        with self._lock:
            queue = self._controls[row]
            if not queue:
                return None
            control = queue.popleft()
            self.limit[row] = queue[0].at if queue else NO_LIMIT
            return control

    def release(self, row: int) -> None:
        """Give a closed row back. Its ring index goes on from where it is."""
        with self._lock:
            self.active[row] = False
            self.ring.released[row] = self.ring.written[row]
        self._free.append(row)

    def made_room(self) -> None:
        """Tell the writer, if it waits, that rows have room again."""
        waiting = self.on_room
        if waiting is not None:
            # Not where there was nobody: who asks in between would be forgotten.
            self.on_room = None
            waiting()
