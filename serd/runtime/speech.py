"""Voice activity, segmentation and controls, over all rows of a pool at once."""

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
from serd.runtime.overload import Governor
from serd.segmenter import Instruction, Offset, Onset, Segment, Segmenter
from serd.types import BoolArray, Int16Array, Int64Array
from serd.vad.detector import Detector

_ROOM_STEPS = 16
_NO_AUDIO: Int16Array = np.empty(0, np.int16)


class SpeechPool:
    """Steps the rows of one pool. Called by the speech thread alone.

    Parameters
    ----------
    submit
        Hands a segment to the inference stage; never blocks.
    give_up
        Takes a segment of a stream that is being shed, to tell that it is lost.
    model
        What is known of the model in use, for an utterance without a judged segment.
    keys
        Gives every opened stream a new line in the assembler, a younger one a greater.
    pressed
        Whether the inference stage is so full that patient rows must wait.
    governor
        Hears of every stream that cannot wait; who calls `step` carries out its instructions.

    Attributes
    ----------
    detector
        The detector, for its own counts.
    frames, steps
        Frames judged, and calls of the detector that took.
    shed_samples
        Samples, at the pool's rate, that were skipped in rows while shed.
    shed_segments
        Segments given up because their stream was shed.
    lag_ns
        How long the oldest audio that cannot wait had waited when the last step began; 0 for
        less than a frame's time.
    """

    def __init__(
        self,
        pool: RowPool,
        detector: Detector,
        segmenter: Segmenter,
        window: int,
        assembler: Assembler,
        submit: Callable[[SegmentJob], None],
        give_up: Callable[[SegmentJob], None],
        model: Callable[[], ModelFacts],
        clock: Clock,
        keys: Iterator[int],
        pressed: Callable[[], bool],
        governor: Governor,
    ) -> None:
        self._pool = pool
        self.detector = detector
        self._segmenter = segmenter
        self._window = window
        self._assembler = assembler
        self._submit = submit
        self._model = model
        self._clock = clock
        self._keys = keys
        self._pressed = pressed
        self._governor = governor
        self._give_up = give_up
        self._shed: BoolArray = np.zeros(pool.rows, np.bool_)
        # Where the audio that is being skipped begins, ring index.
        self._shed_from: Int64Array = np.zeros(pool.rows, np.int64)
        # Rows of the streams that the governor knows.
        self._governed: dict[int, int] = {}
        self._position: Int64Array = np.zeros(pool.rows, np.int64)
        self._lines: list[Line | None] = [None] * pool.rows
        self.frames = 0
        self.steps = 0
        self.shed_samples = 0
        self.shed_segments = 0
        self.lag_ns = 0

    def step(self) -> bool:
        """One frame of every row that has one, then the controls that are due.

        Returns
        -------
        bool
            Whether more of what was there at the beginning is left; call again until it is not.
            Of what came meanwhile the caller is woken.
        """
        pool = self._pool
        frame = pool.frame
        self.lag_ns = 0
        active = pool.in_use()
        if not len(active):
            return False
        if self.steps % _ROOM_STEPS == 0:
            # Not at every step: a source that waits would be woken for a single frame's room,
            # and the two threads would take turns at the interpreter lock.
            pool.made_room()
        # The order of these two reads matters, see RowPool. (`take` costs half of an index.)
        written = pool.ring.written.take(active)
        limit = pool.limit.take(active)
        position = self._position.take(active)
        behind = np.minimum(written, limit)
        behind -= position
        if self._governed and len(shed := np.flatnonzero(self._shed.take(active))):
            self._skip(active, shed, position, behind)
        if self._pressed():
            # Holding back the rows whose sources can wait keeps the room that is left for those
            # that cannot: a recording played fast never costs a live call a segment.
            behind[pool.patient.take(active)] = 0
        late = behind >= 2 * frame
        more = bool(late.any())
        if more and self._governed:
            self._measure(active[late], position[late])
        ready = np.flatnonzero(behind >= frame)
        if len(ready):
            rows = active.take(ready)
            self._frame(rows, position.take(ready))
            position[ready] += frame
        # A control is due when no whole frame lies before it. It was queued before what is
        # written behind it, so that all that it waits for is here once `written` reaches it.
        due = (limit <= written) & (limit - position < frame)
        if due.any():
            more = True
            for row in active[due].tolist():
                self._controls(row)
        if not more:
            pool.made_room()
        return more

    def _skip(
        self, active: Int64Array, shed: Int64Array, position: Int64Array, behind: Int64Array
    ) -> None:
        """Move those of the active rows that are shed to the end of what they hold, in place.

        In whole frames, which keeps their place in the ring and the order of their controls.
        """
        position[shed] += behind[shed] // self._pool.frame * self._pool.frame
        behind[shed] = 0
        rows = active.take(shed)
        self._position[rows] = self._pool.ring.released[rows] = position.take(shed)

    def _measure(self, rows: Int64Array, starts: Int64Array) -> None:
        """Note how long the oldest of the frames that begin here has waited.

        Asked only of rows that are more than a frame behind: a live row that is not has waited for
        less than the 32 ms until its next frame.
        """
        hurried = ~self._pool.patient.take(rows)
        if hurried.any():
            ends = starts[hurried] + self._pool.frame
            arrived_ns = self._pool.first_arrival_ns(rows[hurried], ends)
            self.lag_ns = self._clock.monotonic_ns() - arrived_ns

    def shed(self, keys: Sequence[int]) -> None:
        """Skip the audio of those of these streams that are in this pool, from here on.

        An utterance that is open ends with the reason ``overload``. Its last segment is told as
        lost: the segments of a great many streams that end at once would keep those that stay
        waiting for longer than all the rest.
        """
        rows = self._rows_of(keys)
        at = self._position[rows]
        instructions = self._segmenter.flush(rows, at, "overload")
        self._shed[rows] = True
        self._shed_from[rows] = at
        self._carry_out(instructions)

    def take_back(self, keys: Sequence[int]) -> None:
        """Go on analysing those of these streams that are in this pool."""
        rows = self._rows_of(keys)
        at = self._position[rows]
        for row, index in zip(rows.tolist(), at.tolist(), strict=True):
            self._settle(row, index)
        self._shed[rows] = False
        self._start(rows, at)

    def _rows_of(self, keys: Sequence[int]) -> Int64Array:
        rows = [self._governed[key] for key in keys if key in self._governed]
        return np.array(rows, np.int64)

    def _settle(self, row: int, at: int) -> None:
        """Tell what a shed row has skipped up to a ring index."""
        start = int(self._shed_from[row])
        if not self._shed[row] or start == at:
            return
        line = self._lines[row]
        assert line is not None, "shed rows are open"
        # What of it was lost before it came here has been told.
        for begin, end in line.unlost(start, at):
            self._tell_gap(line, Gap("overload", begin, end, 0))
        line.forget_losses(at)
        self.shed_samples += at - start
        self._shed_from[row] = at

    def _frame(self, rows: Int64Array, starts: Int64Array) -> None:
        pool = self._pool
        frames = pool.ring.gather(rows, starts, pool.frame)
        probability = self.detector.step(rows, frames)
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
            case Jump(at, source, reason, timeline, gap):
                line.end_run(at, source)
                self._settle(row, at)
                self._flush(row, at, reason)
                if gap is not None:
                    self._tell_gap(line, gap)
                line.begin_run(timeline)
                self._begin(row, at)
            case Filled(_, gap):
                self._settle(row, int(self._position[row]))
                if not line.speaking:
                    # Nobody may speak for days.
                    line.forget_losses(int(self._pool.ring.released[row]))
                line.losses.note(gap.start, gap.end)
                self._tell_gap(line, gap)
            case Told(_, gap):
                self._tell_gap(line, gap)
            case Changed(_, info):
                line.info = info
            case Paused(at, source):
                line.end_run(at, source)
                self._settle(row, at)
                self._flush(row, at, "paused")
                self._tell_state(line, "paused", None, at)
                self._begin(row, at)
            case Resumed(at, timeline):
                line.begin_run(timeline)
                self._tell_state(line, "resumed", None, at)
                self._begin(row, at)
            case Close(at, source, reason, refused):
                line.end_run(at, source)
                self._settle(row, at)
                self._flush(row, at, reason)
                if refused:
                    self._tell_state(line, "refused", reason, at)
                self._tell_state(line, "closed", reason, at)
                self._assembler.end(line.key)
                if self._governed.pop(line.key, None) is not None:
                    self._governor.closed(line.key)
                self._shed[row] = False
                self._lines[row] = None
                self._position[row] = at
                self._pool.release(row)

    def _open(self, row: int, control: Open) -> None:
        line = Line(next(self._keys), self._pool, row, control.info, control.timeline)
        self._lines[row] = line
        self._position[row] = control.at
        # Channel 0 of `a` and a stream that calls itself `a/0` are two.
        info = control.info
        self._assembler.begin(line.key, (info.source, info.stream, info.channels > 1))
        self._tell_state(line, "opened", None, control.at)
        self._begin(row, control.at, keep_utterances=False)
        if not self._pool.patient[row]:
            self._governed[line.key] = row
            self._shed[row] = not self._governor.opened(line.key)
            self._shed_from[row] = control.at

    def _begin(self, row: int, at: int, *, keep_utterances: bool = True) -> None:
        self._start(np.array([row]), np.array([at]), keep_utterances=keep_utterances)
        self._pool.made_room()

    def _start(self, rows: Int64Array, at: Int64Array, *, keep_utterances: bool = True) -> None:
        self._position[rows] = at
        self.detector.reset(rows)
        self._segmenter.start(rows, at, keep_utterances=keep_utterances)
        self._pool.ring.released[rows] = at

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
        line.speaking = True
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
        now_ns = self._clock.monotonic_ns()
        if self._shed[row]:
            self.shed_segments += 1
            self._give_up(SegmentJob(_NO_AUDIO, self._pool.rate_hz, now_ns, context))
            return
        audio = self._pool.ring.read(row, segment.start, segment.end)
        self._submit(SegmentJob(audio, self._pool.rate_hz, now_ns, context))

    def _offset(self, line: Line, offset: Offset) -> None:
        info, utterance = line.info, line.utterance
        line.speaking = False
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
                    self._model(),
                    round((self._clock.monotonic_ns() - arrived_ns) / 1e6, 3),
                )
            ],
        )


def line_keys() -> Iterator[int]:
    """Keys for `SpeechPool`, shared by all pools of a daemon."""
    return itertools.count()
