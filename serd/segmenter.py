"""From speech probabilities to utterances and the segments that the emotion model sees.

The segmenter is pure: probabilities in, instructions out, over all rows at once. It knows no audio,
no streams and no time; positions are sample indexes of the row, exact integers at any size.

What happens to a row, frame by frame
-------------------------------------
*Speech frame.* A frame is speech when its probability reaches `onset_threshold`, or when the frame
before was speech and its probability still reaches `offset_threshold` (hysteresis).

*Onset.* The first speech frame in silence begins a candidate. Speech frames count for it and
other frames against it; it becomes an utterance when the balance reaches `min_speech_ms` (rounded
up to frames), and is forgotten, without any instruction, when the balance is back at zero or is
not reached within twice `min_speech_ms`. So a click or a cough makes no utterance, a stop
consonant delays one by twice itself, and the decision for steady speech comes `min_speech_ms`
after its first frame. The utterance starts `padding_ms` before the candidate's first speech frame,
but neither before the row's first sample nor before the end of the utterance before. Audio
therefore never belongs to two utterances.

*Offset.* Silence shorter than `hangover_ms` belongs to the utterance. When the hangover is over the
utterance ends, `padding_ms` after the end of its last speech frame. Because the padding is at most
the hangover, that end always lies in audio that has been seen.

*Maximum utterance.* No utterance is longer than `max_utterance_s`. When a speech frame ends beyond
that limit the utterance ends at the limit, to the sample, with the reason ``max_utterance``, and
the next one starts at the same sample, unpadded and without having to be confirmed again. When the
speaker falls silent before the limit, padding stops at the limit and the reason is ``silence``.

*Flush.* An open utterance ends `padding_ms` after its last speech frame or where the row ends,
whichever is first. It was confirmed already, so it is reported however short. A candidate that is
not confirmed yet is forgotten: what was too short to be an utterance does not become one because
the audio ends. After a flush the row must be started again.

Segments
--------
Segment `i` of an utterance from `u` to `e` covers ``[u + i * hop, u + i * hop + window)``, as long
as that ends at or before `e`. It is cut as soon as it is certain to lie inside the utterance: its
end has been seen and is at most the padding behind the last speech frame. In a pause a due segment
waits until speech goes on or the offset comes, so no segment ever reaches beyond its utterance. If
none of these ends at `e`, a last one covers ``[max(u, e - window), e)``; it is the only one that
may be shorter than the window (the utterance is), in which case it is for the consumer to pad.
Hence the segments of an utterance cover all of it, nothing outside it, and their ends strictly
increase.

`Segment.last` marks a segment cut at the offset; an utterance that turns out to end with a segment
that was cut before has none so marked, and `Offset.segments` is what tells that it is complete.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from serd.types import Float32Array, Int64Array


class Onset(NamedTuple):
    """Speech has begun.

    `at` is the start of the utterance (padding included), `decided` the end of the frame that
    confirmed it; both are sample indexes of the row.
    """

    row: int
    utterance: int
    at: int
    decided: int


class Segment(NamedTuple):
    """A piece of an utterance for one inference: samples ``[start, end)`` of the row.

    `index` counts the segments of the utterance from 0. ``end - start`` is the window, or less when
    the whole utterance is shorter. `speech_ratio` is the share of its samples that lie in speech
    frames, 0 to 1.
    """

    row: int
    utterance: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    start: int
    end: int
    last: bool
    speech_ratio: float
    decided: int


class Offset(NamedTuple):
    """Speech from `start` has ended at `at`, for `reason`: ``silence``, ``max_utterance`` or the
    reason given to `Segmenter.flush`.

    `segments` is how many segments the utterance had (at least one), `speech_ratio` the share of
    its samples that lie in speech frames, 0 to 1.
    """

    row: int
    utterance: int
    start: int
    at: int
    reason: str
    segments: int
    speech_ratio: float
    decided: int


Instruction: TypeAlias = Onset | Segment | Offset


@dataclass(frozen=True)
class SegmenterOptions:
    """Thresholds and durations; see the module's text for what each does.

    Raises
    ------
    ValueError
        If a value is out of range or two values contradict each other.
    """

    sample_rate_hz: int
    frame_samples: int
    onset_threshold: float = 0.5
    offset_threshold: float = 0.35
    min_speech_ms: float = 250
    hangover_ms: float = 500
    padding_ms: float = 200
    window_s: float = 3.0
    hop_s: float = 1.0
    max_utterance_s: float = 60.0

    def __post_init__(self) -> None:
        if self.sample_rate_hz <= 0 or self.frame_samples <= 0:
            raise ValueError("sample_rate_hz and frame_samples must be positive")
        if not 0 < self.offset_threshold <= self.onset_threshold <= 1:
            raise ValueError("0 < offset_threshold <= onset_threshold <= 1 is required")
        if not 0 <= self.padding_ms <= self.hangover_ms:
            raise ValueError("0 <= padding_ms <= hangover_ms is required")
        if self.min_speech_ms < 0:
            raise ValueError("min_speech_ms must not be negative")
        if not 0 < self.hop_s <= self.window_s <= self.max_utterance_s:
            raise ValueError("0 < hop_s <= window_s <= max_utterance_s is required")
        if self.samples(self.hop_s) < 1:
            raise ValueError("hop_s is shorter than a sample")
        if self.samples(self.window_s) < self.frame_samples:
            raise ValueError("window_s is shorter than a frame")

    def samples(self, seconds: float) -> int:
        """`seconds` in samples, to the nearest."""
        return round(seconds * self.sample_rate_hz)


# Columns of the state, one int64 row per stream row: a step then gathers and scatters once.
_POSITION = 0  # end of the last frame, the next frame's start
_ACTIVE = 1  # 1: the last frame was speech
_HEARD = 2  # samples of speech frames since the row was started
_BALANCE = 3  # candidate: speech frames minus other frames; 0: no candidate
_CANDIDATE = 4  # start of the candidate's first speech frame
_LAST_SPEECH = 5  # end of the utterance's last speech frame; _NEVER while no utterance is open
_WAKE = 6  # the utterance has something to do once this much of it is certain; else _NEVER
_FLOOR = 7  # no utterance starts before this
_UTTERANCE = 8  # number of the open utterance, or of the next one
_START = 9  # start of the open utterance
_HEARD_BEFORE = 10  # _HEARD at _START
_NEXT = 11  # start of the next regular segment
_SEGMENTS = 12  # segments of the open utterance so far
_COLUMNS = 13

_NEVER = 1 << 62  # beyond every position, and durations can still be added to it


class Segmenter:
    """Onset and offset machine and segment cutting for `rows` rows.

    Every row must be given to `start` before its first `step`. A step takes one frame of each of
    any set of rows; rows do not influence each other.

    A step of 1000 rows takes some 50 µs (20 µs for up to 100), and 6 µs more for each instruction.
    """

    def __init__(self, rows: int, options: SegmenterOptions) -> None:
        self.options = options
        frame = options.frame_samples
        per_ms = options.sample_rate_hz / 1000
        self._frame = frame
        self._window = options.samples(options.window_s)
        self._hop = options.samples(options.hop_s)
        self._max_utterance = options.samples(options.max_utterance_s)
        self._padding = round(options.padding_ms * per_ms)
        # At least one sample, so that an utterance's own last speech frame does not end it.
        self._hangover = max(round(options.hangover_ms * per_ms), 1)
        self._min_frames = max(math.ceil(round(options.min_speech_ms * per_ms) / frame), 1)
        self._max_candidate = 2 * self._min_frames * frame
        self._state = np.zeros((rows, _COLUMNS), np.int64)
        self._state[:, _LAST_SPEECH] = self._state[:, _WAKE] = _NEVER
        # Speech flags of the latest frames, a ring addressed by position // frame. It reaches back
        # to the oldest sample that `retain_from` still promises, whatever state the row is in.
        memory = max(self._window + self._hangover, self._max_candidate + self._padding)
        # Three more: what the latest frame adds, and the frames that either end cuts through.
        self._flags = np.zeros((rows, memory // frame + 3), np.bool_)

    def start(self, rows: Int64Array, positions: Int64Array, keep_utterances: bool = False) -> None:
        """Fresh state for `rows` (int64[n], unique): frame k of a row covers
        ``[position + k * frame_samples, position + (k + 1) * frame_samples)``.

        Utterances count from 0 again, or go on counting with `keep_utterances` (after a gap).
        """
        numbers = self._state[rows, _UTTERANCE]
        self._state[rows] = 0
        self._state[rows, _POSITION] = self._state[rows, _FLOOR] = positions
        self._state[rows, _LAST_SPEECH] = self._state[rows, _WAKE] = _NEVER
        if keep_utterances:
            self._state[rows, _UTTERANCE] = numbers

    def step(self, rows: Int64Array, probability: Float32Array) -> list[Instruction]:
        """Take one frame of each of `rows` (int64[n], unique) with its speech probability
        (float32[n], 0 to 1); return what follows from it, in the order of `rows`, then of time.
        """
        options = self.options
        state = self._state.take(rows, axis=0)
        position = state[:, _POSITION]
        last_speech = state[:, _LAST_SPEECH]
        balance = state[:, _BALANCE]

        active = probability >= options.offset_threshold
        active &= (probability >= options.onset_threshold) | (state[:, _ACTIVE] != 0)
        self._flags[rows, position // self._frame % self._flags.shape[1]] = active
        state[:, _ACTIVE] = active
        state[:, _HEARD] += active * self._frame
        is_open = last_speech != _NEVER
        np.copyto(state[:, _CANDIDATE], position, where=active & (balance == 0))
        position += self._frame

        balance += 2 * state[:, _ACTIVE] - 1
        np.maximum(balance, 0, out=balance)
        balance[is_open] = 0
        np.copyto(last_speech, position, where=active & is_open)

        due = np.minimum(last_speech + self._padding, position) >= state[:, _WAKE]
        due |= position - last_speech >= self._hangover
        due |= balance >= self._min_frames
        due |= (position - state[:, _CANDIDATE] >= self._max_candidate) & (balance > 0)
        self._state[rows] = state

        instructions: list[Instruction] = []
        for index in np.flatnonzero(due).tolist():
            self._advance(int(rows[index]), instructions)
        return instructions

    def flush(self, rows: Int64Array, ends: Int64Array, reason: str) -> list[Instruction]:
        """Close the open utterances of `rows` (int64[n], unique), whose audio ends at `ends`
        (int64[n], at or after the end of the row's last frame); return the instructions in the
        order of `rows`, then of time. The rows must be started again before their next step.

        Raises
        ------
        ValueError
            If an end lies before the end of a frame that was already taken.
        """
        if (ends < self._state[rows, _POSITION]).any():
            raise ValueError("a row cannot end before its last frame")
        instructions: list[Instruction] = []
        for row, end in zip(rows.tolist(), ends.tolist(), strict=True):
            if self._state[row, _LAST_SPEECH] != _NEVER:
                self._close(row, min(self._limit(row), end), end, reason, instructions)
        self._state[rows, _BALANCE] = 0
        return instructions

    def retain_from(self, rows: Int64Array) -> Int64Array:
        """Oldest sample index, for each of `rows` (int64[n]), that a future `Onset.at` or `Segment`
        can refer to: int64[n], never decreasing. (`Offset.start` may be older.)
        """
        state = self._state[rows]
        position = state[:, _POSITION]
        candidate = np.where(state[:, _BALANCE] > 0, state[:, _CANDIDATE], position)
        idle = np.maximum(state[:, _FLOOR], candidate - self._padding)
        # The utterance can end no earlier than here, so its last segment starts no earlier than a
        # window before.
        limit = np.minimum(state[:, _LAST_SPEECH] + self._padding, position)
        limit = np.minimum(limit, state[:, _START] + self._max_utterance)
        last = np.maximum(state[:, _START], limit - self._window)
        is_open = state[:, _LAST_SPEECH] != _NEVER
        oldest: Int64Array = np.where(is_open, np.minimum(state[:, _NEXT], last), idle)
        return oldest

    def _advance(self, row: int, instructions: list[Instruction]) -> None:
        """Do what the row's latest frame made due."""
        state = self._state[row]
        position = int(state[_POSITION])
        if state[_LAST_SPEECH] == _NEVER:
            confirmed = state[_BALANCE] >= self._min_frames
            state[_BALANCE] = 0
            if not confirmed:
                return
            start = max(int(state[_FLOOR]), int(state[_CANDIDATE]) - self._padding)
            self._open(row, start, instructions)
        elif position - state[_LAST_SPEECH] >= self._hangover:
            self._close(row, self._limit(row), position, "silence", instructions)
            return
        while state[_LAST_SPEECH] > (limit := int(state[_START]) + self._max_utterance):
            self._close(row, limit, position, "max_utterance", instructions)
            self._open(row, limit, instructions)
        self._cut(row, min(self._limit(row), position), position, instructions)
        state[_WAKE] = min(int(state[_NEXT]) + self._window, limit + 1)

    def _limit(self, row: int) -> int:
        """Where the open utterance would end if no more speech came."""
        state = self._state[row]
        last_speech, start = int(state[_LAST_SPEECH]), int(state[_START])
        return min(last_speech + self._padding, start + self._max_utterance)

    def _open(self, row: int, start: int, instructions: list[Instruction]) -> None:
        """Begin an utterance at `start`; the latest frame is speech."""
        state = self._state[row]
        position = int(state[_POSITION])
        state[_LAST_SPEECH] = position
        state[_START] = state[_NEXT] = start
        state[_SEGMENTS] = 0
        state[_HEARD_BEFORE] = state[_HEARD] - self._speech_samples(row, start, position)
        instructions.append(Onset(row, int(state[_UTTERANCE]), start, position))

    def _close(
        self, row: int, end: int, decided: int, reason: str, instructions: list[Instruction]
    ) -> None:
        """End the open utterance at `end`, with its last segment."""
        state = self._state[row]
        start = int(state[_START])
        self._cut(row, end, decided, instructions, closing=True)
        heard = int(state[_HEARD]) - self._speech_samples(row, end, int(state[_POSITION]))
        instructions.append(
            Offset(
                row,
                int(state[_UTTERANCE]),
                start,
                end,
                reason,
                int(state[_SEGMENTS]),
                (heard - int(state[_HEARD_BEFORE])) / (end - start),
                decided,
            )
        )
        state[_LAST_SPEECH] = state[_WAKE] = _NEVER
        state[_FLOOR] = end
        state[_UTTERANCE] += 1

    def _cut(
        self,
        row: int,
        end: int,
        decided: int,
        instructions: list[Instruction],
        closing: bool = False,
    ) -> None:
        """Cut the segments that end at or before `end`; when `closing`, the last one too."""
        state = self._state[row]
        utterance, start, following, index = state[[_UTTERANCE, _START, _NEXT, _SEGMENTS]].tolist()
        spans: list[tuple[int, int]] = []
        while following + self._window <= end:
            spans.append((following, following + self._window))
            following += self._hop
        covered = following - self._hop + self._window if following > start else start
        if closing and covered < end:
            spans.append((max(start, end - self._window), end))
        for begin, finish in spans:
            ratio = self._speech_samples(row, begin, finish) / (finish - begin)
            last = closing and finish == end
            instructions.append(Segment(row, utterance, index, begin, finish, last, ratio, decided))
            index += 1
        state[_NEXT] = following
        state[_SEGMENTS] = index

    def _speech_samples(self, row: int, start: int, end: int) -> int:
        """Samples of ``[start, end)`` in speech frames; what is not seen yet is silence."""
        frame = self._frame
        position = int(self._state[row, _POSITION])
        end = min(end, position)
        if start >= end:
            return 0
        phase = position % frame
        first, final = (start - phase) // frame, (end - 1 - phase) // frame
        flags = self._flags[row]
        speech = flags[np.arange(first, final + 1) % flags.size]
        samples = int(np.count_nonzero(speech)) * frame
        samples -= int(speech[0]) * (start - phase - first * frame)
        samples -= int(speech[-1]) * ((final + 1) * frame + phase - end)
        return samples
