"""The speech stage: voice activity, segmentation and controls, over all rows of a pool at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from serd.clock import Clock
from serd.inference.worker import SegmentJob
from serd.rows import (
    Changed,
    Close,
    Control,
    Filled,
    Gap,
    Jump,
    Open,
    Paused,
    Resumed,
    RowPool,
    Told,
)
from serd.runtime.assembler import Assembler
from serd.runtime.line import (
    Line,
    ModelFacts,
    SegmentContext,
    Utterance,
    utterance_event,
)
from serd.segmenter import Instruction, Offset, Onset, Segment, Segmenter
from serd.types import Int64Array
from serd.vad.detector import Detector

_ROOM_STEPS = 16


class SpeechPool:
    """Steps the rows of one pool. Called by the speech thread alone.

    Parameters
    ----------
    submit
        Hands a segment to the inference stage; never blocks.
    keys
        Gives every opened stream a new line in the assembler.
    pressed
        Whether the inference stage is so full that patient rows must wait.
    """

    def __init__(
        self,
        pool: RowPool,
        detector: Detector,
        segmenter: Segmenter,
        window: int,
        assembler: Assembler,
        submit: Callable[[SegmentJob], None],
        model: ModelFacts,
        clock: Clock,
        keys: Iterator[int],
        pressed: Callable[[], bool],
    ) -> None:
        self._pool = pool
        self._detector = detector
        self._segmenter = segmenter
        self._window = window
        self._assembler = assembler
        self._submit = submit
        self._model = model
        self._clock = clock
        self._keys = keys
        self._pressed = pressed
        self._position: Int64Array = np.zeros(pool.rows, np.int64)
        self._lines: list[Line | None] = [None] * pool.rows
        self.frames = 0
        self.steps = 0

    def step(self) -> bool:
        """One frame of every row that has one, then the controls that are due.

        Returns
        -------
        bool
            Whether anything was done; call again until nothing is.
        """
        pool = self._pool
        active = np.flatnonzero(pool.active)
        if not len(active):
            return False
        if self.steps % _ROOM_STEPS == 0:
            # Not at every step: a source that waits would be woken for a single frame's room,
            # and the two threads would take turns at the interpreter lock.
            pool.made_room()
        # The order of these two reads matters, see RowPool.
        written = pool.ring.written[active]
        limit = pool.limit[active]
        position = self._position[active]
        ready = np.minimum(written, limit) - position >= pool.frame
        if self._pressed():
            # Holding back the rows whose sources can wait keeps the room that is left for those
            # that cannot: a recording played fast never costs a live call a segment.
            ready &= ~pool.patient[active]
        rows = active[ready]
        if len(rows):
            self._frame(rows, position[ready])
        # A control is due when no whole frame lies before it. It was queued before what is
        # written behind it, so that all that it waits for is here once `written` reaches it.
        position[ready] += pool.frame
        due = (limit <= written) & (limit - position < pool.frame)
        for row in active[due].tolist():
            self._controls(row)
        worked = bool(len(rows)) or bool(due.any())
        if not worked:
            pool.made_room()
        return worked

    def _frame(self, rows: Int64Array, starts: Int64Array) -> None:
        pool = self._pool
        frames = pool.ring.gather(rows, starts, pool.frame)
        probability = self._detector.step(rows, frames)
        self._position[rows] += pool.frame
        self._carry_out(self._segmenter.step(rows, probability))
        pool.ring.released[rows] = self._segmenter.retain_from(rows)
        self.frames += len(rows)
        self.steps += 1

    def _controls(self, row: int) -> None:
        pool = self._pool
        while int(pool.limit[row]) - int(self._position[row]) < pool.frame:
            # A frame boundary is as close as a control that only informs can come.
            if int(pool.limit[row]) > int(pool.ring.written[row]):
                return
            control = pool.next_control(row)
            if control is None:
                return
            self._control(row, control)
            if isinstance(control, Close):
                return

    def _control(self, row: int, control: Control) -> None:
        if isinstance(control, Open):
            self._open(row, control)
            return
        line = self._lines[row]
        assert line is not None, "the first control of a row opens it"
        match control:
            case Jump(at, reason, timeline, gap):
                self._flush(row, at, reason)
                if gap is not None:
                    self._tell_gap(line, gap)
                line.timeline = timeline
                self._begin(row, at)
            case Filled(at, until, gap):
                line.lost(at, until)
                self._tell_gap(line, gap)
            case Told(_, gap):
                self._tell_gap(line, gap)
            case Changed(_, info):
                line.info = info
            case Paused(at):
                self._flush(row, at, "paused")
                self._tell_state(line, "paused", None, at)
                self._begin(row, at)
            case Resumed(at, timeline):
                line.timeline = timeline
                self._tell_state(line, "resumed", None, at)
                self._begin(row, at)
            case Close(at, reason, refused):
                self._flush(row, at, reason)
                if refused:
                    self._tell_state(line, "refused", reason, at)
                self._tell_state(line, "closed", reason, at)
                self._lines[row] = None
                self._position[row] = at
                self._pool.release(row)

    def _open(self, row: int, control: Open) -> None:
        line = Line(next(self._keys), self._pool, row, control.info, control.timeline)
        self._lines[row] = line
        self._position[row] = control.at
        self._tell_state(line, "opened", None, control.at)
        self._begin(row, control.at, keep_utterances=False)

    def _begin(self, row: int, at: int, *, keep_utterances: bool = True) -> None:
        rows = np.array([row])
        self._position[row] = at
        self._detector.reset(rows)
        self._segmenter.start(rows, np.array([at]), keep_utterances=keep_utterances)
        self._pool.ring.released[row] = at
        self._pool.made_room()

    def _flush(self, row: int, at: int, reason: str) -> None:
        self._carry_out(self._segmenter.flush(np.array([row]), np.array([at]), reason))

    def _tell_state(self, line: Line, state: str, reason: str | None, at: int) -> None:
        event = line.stream_event(state, reason, at)
        self._assembler.say(line.key, lambda: [event])

    def _tell_gap(self, line: Line, gap: Gap) -> None:
        event = line.gap_event(gap)
        self._assembler.say(line.key, lambda: [event])

    def _carry_out(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            line = self._lines[instruction.row]
            assert line is not None, "instructions are for open rows"
            if isinstance(instruction, Segment):
                self._segment(line, instruction)
            elif isinstance(instruction, Onset):
                self._onset(line, instruction)
            else:
                self._offset(line, instruction)

    def _onset(self, line: Line, onset: Onset) -> None:
        line.utterance = Utterance(onset.utterance)
        line.forget_losses(onset.at)
        event = line.speech_event("onset", None, onset.utterance, onset.at)
        self._assembler.say(line.key, lambda: [event])

    def _segment(self, line: Line, segment: Segment) -> None:
        row = segment.row
        context = SegmentContext(
            info=line.info,
            place=self._assembler.reserve(line.key),
            utterance=line.utterance,
            instruction=segment,
            span=line.span(segment.start, segment.end),
            padded=segment.end - segment.start < self._window,
            arrived_ns=self._pool.arrived_ns(row, segment.decided),
        )
        audio = self._pool.ring.read(row, segment.start, segment.end)
        self._submit(SegmentJob(audio, self._pool.rate_hz, self._clock.monotonic_ns(), context))

    def _offset(self, line: Line, offset: Offset) -> None:
        info, utterance = line.info, line.utterance
        span = line.span(offset.start, offset.at)
        arrived_ns = self._pool.arrived_ns(offset.row, offset.decided)
        speech = line.speech_event("offset", offset.reason, offset.utterance, offset.at)
        self._assembler.say(line.key, lambda: [speech])
        self._assembler.say(
            line.key,
            lambda: [
                utterance_event(
                    info,
                    span,
                    utterance,
                    offset,
                    self._model,
                    round((self._clock.monotonic_ns() - arrived_ns) / 1e6, 3),
                )
            ],
        )


class SpeechStage:
    """Both pools, stepped in turn until nothing is left to do."""

    def __init__(self, pools: Sequence[SpeechPool], shared: Sequence[RowPool]) -> None:
        self._pools = pools
        self._shared = shared

    def work(self) -> None:
        """Do everything that is due."""
        while True:
            # Not any(): every pool must have its turn.
            if not sum(pool.step() for pool in self._pools):
                return

    @property
    def empty(self) -> bool:
        """Whether no row is in use."""
        return not any(bool(pool.active.any()) for pool in self._shared)

    def counts(self) -> dict[str, int]:
        """Frames judged, and detector calls that took."""
        return {
            "vad.frames": sum(pool.frames for pool in self._pools),
            "vad.calls": sum(pool.steps for pool in self._pools),
        }


def line_keys() -> Iterator[int]:
    """Keys for `SpeechPool`, shared by all pools of a daemon."""
    return itertools.count()
