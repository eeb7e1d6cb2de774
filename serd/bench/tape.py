"""All messages of all streams, 20 ms at a time, laid out by numpy as they go over the wire.

A message is a fixed number of bytes, so those of a tick are one structured array: the rows of the
streams that play, taken from a template, with sequence, position, time and audio filled in column
by column. Its memory is what is sent: about 0.1 µs a message (1,500 streams).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serd.bench import zmtp
from serd.protocol.tap import HEADER_BYTES, MAGIC, SEQUENCE_MODULUS, Flag
from serd.types import BoolArray, Encoding, Int64Array

TICK_MS = 20
"""Audio in one message."""
SLOTS = 10
"""Moments of a tick at which messages leave: streams are spread evenly over them."""
SLOT_NS = TICK_MS * 1_000_000 // SLOTS

_SHORT_FRAME = 255
SPARED_AT_END = 1000 // TICK_MS
"""Last messages of a stream that are neither lost on purpose nor suppressed."""


def stream_id(number: int) -> str:
    """Id of a stream; all have the same length."""
    return f"bench-{number:06d}"


def stream_number(stream: str) -> int:
    """The number in a stream id."""
    return int(stream.removeprefix("bench-"))


@dataclass(frozen=True)
class Streams:
    """When each stream plays what; one entry each in every array.

    Attributes
    ----------
    number
        int64: number of the stream.
    conversation
        int64: channel of the conversations that it plays, from its beginning.
    join
        int64: tick of its first message.
    blocks
        int64: how many messages of audio it has.
    slot
        int64: moment within a tick at which it sends, 0 to `SLOTS` - 1.
    tap
        int64: connection.
    """

    number: Int64Array
    conversation: Int64Array
    join: Int64Array
    blocks: Int64Array
    slot: Int64Array
    tap: Int64Array

    @property
    def ticks(self) -> int:
        """Ticks until the last stream has ended."""
        return int((self.join + self.blocks).max(initial=0))

    def share(self, part: int, parts: int) -> Streams:
        """Every `parts`-th stream, beginning with number `part`."""
        return Streams(*(column[part::parts] for column in self.columns()))

    def columns(self) -> tuple[Int64Array, ...]:
        """The arrays, in the order of the attributes."""
        return (self.number, self.conversation, self.join, self.blocks, self.slot, self.tap)


@dataclass(frozen=True)
class Line:
    """What a network, and a thrifty tap, do to the messages.

    Attributes
    ----------
    jitter_ms
        Each message leaves up to this later, evenly distributed, but never before the one before
        it.
    loss
        Share of the messages that never leave, 0 to 1.
    suppress_silence
        Whether messages without speech are left out, which is no loss.

    Both spare the first message and the last second of a stream: a daemon that waits for a message
    before the end of a stream would wait until its time-out.
    """

    jitter_ms: float = 0.0
    loss: float = 0.0
    suppress_silence: bool = False

    @property
    def exact(self) -> bool:
        """Whether the daemon hears every sample."""
        return not self.loss and not self.suppress_silence


class Piece(NamedTuple):
    """Messages that leave one connection at one moment: `slot` counts from the beginning."""

    slot: int
    tap: int
    content: memoryview
    messages: int


class Tape:
    """The messages of some streams, tick by tick.

    Parameters
    ----------
    streams
        Who plays what.
    audio
        uint8 ``[conversations, blocks, bytes]``: payloads; played over and over.
    silent
        bool ``[conversations, blocks]``: what silence suppression leaves out.
    encoding, sample_rate_hz
        Of the audio.
    line
        What befalls the messages.
    seed
        For jitter and loss.

    Attributes
    ----------
    messages, withheld, suppressed
        How many were made, lost on purpose, and left out as silence.
    delay
        uint8 ``[ticks, streams]``: slots by which jitter delayed each message; None without jitter.
    """

    def __init__(
        self,
        streams: Streams,
        audio: NDArray[np.uint8],
        silent: BoolArray,
        encoding: Encoding,
        sample_rate_hz: int,
        line: Line,
        seed: int,
    ) -> None:
        # In the order of leaving, so that without jitter nothing has to be sorted again.
        order = np.lexsort((streams.number, streams.tap, streams.slot))
        self.streams = Streams(*(column[order] for column in streams.columns()))
        self.messages = self.withheld = self.suppressed = 0
        self._audio = audio
        self._silent = silent
        self._line = line
        self._block = sample_rate_hz * TICK_MS // 1000
        self._rng = np.random.default_rng(seed)
        self._template = _template(self.streams.number, audio.shape[2], encoding, sample_rate_hz)
        self._sequence: Int64Array = np.zeros(len(order), np.int64)
        self._jitter_slots = round(line.jitter_ms / TICK_MS * SLOTS)
        self._leaves: Int64Array = np.zeros(len(order), np.int64)
        self.delay: NDArray[np.uint8] | None = None
        if self._jitter_slots:
            self.delay = np.zeros((streams.ticks, len(order)), np.uint8)

    def tick(self, tick: int, unix_ns: int) -> Iterator[Piece]:
        """Messages whose audio ends in this tick; `unix_ns` is when the run began."""
        streams, audio = self.streams, self._audio
        number = tick - streams.join
        playing = (number >= 0) & (number < streams.blocks)
        last = number == streams.blocks - 1
        inner = (number > 0) & (number < streams.blocks - SPARED_AT_END)
        if self._line.suppress_silence:
            silent = self._silent[streams.conversation, number % self._silent.shape[1]]
            silent &= playing & inner
            self.suppressed += int(silent.sum())
            playing &= ~silent
        sequence = self._sequence.copy()
        self._sequence += playing
        if self._line.loss:
            lost = playing & inner & (self._rng.random(len(playing)) < self._line.loss)
            self.withheld += int(lost.sum())
            playing &= ~lost
        rows = np.flatnonzero(playing)
        if not len(rows):
            return
        number = number[rows]
        slot = tick * SLOTS + streams.slot[rows]
        made = self._template[rows]
        made["flags"] = (number == 0) * int(Flag.START) + last[rows] * int(Flag.END)
        made["sequence"] = sequence[rows] % SEQUENCE_MODULUS
        made["first_sample"] = number * self._block
        made["captured_at_ns"] = unix_ns + (slot - SLOTS) * SLOT_NS
        made["payload"] = audio[streams.conversation[rows], number % audio.shape[1]]
        if self._jitter_slots:
            slot, order = self._jittered(tick, rows, slot)
            made, slot, rows = made[order], slot[order], rows[order]
        self.messages += len(rows)
        yield from _pieces(made, slot, streams.tap[rows])

    def _jittered(
        self, tick: int, rows: Int64Array, slot: Int64Array
    ) -> tuple[Int64Array, Int64Array]:
        """When the messages really leave, and their order."""
        assert self.delay is not None, "there is jitter"
        leaves = slot + self._rng.integers(0, self._jitter_slots + 1, len(rows))
        # A connection keeps the order of a stream.
        np.maximum(leaves, self._leaves[rows], out=leaves)
        self._leaves[rows] = leaves
        self.delay[tick, rows] = np.minimum(leaves - slot, 255)
        return leaves, np.lexsort((self.streams.tap[rows], leaves))


def _pieces(made: NDArray[Any], slot: Int64Array, tap: Int64Array) -> Iterator[Piece]:
    content = made.view(np.uint8).data
    size = made.dtype.itemsize
    starts = [0, *(np.flatnonzero(np.diff(slot) | np.diff(tap)) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], len(made)], strict=True):
        yield Piece(
            int(slot[start]), int(tap[start]), content[start * size : end * size], end - start
        )


def _template(
    numbers: Int64Array, payload: int, encoding: Encoding, sample_rate_hz: int
) -> NDArray[Any]:
    """A message of each stream, with everything in it that never changes."""
    names = [stream_id(number).encode() for number in numbers.tolist()]
    size = len(stream_id(0))
    large = payload > _SHORT_FRAME
    kind = np.dtype(
        [
            ("id_flags", "u1"),
            ("id_size", "u1"),
            ("id", f"S{size}"),
            ("header_flags", "u1"),
            ("header_size", "u1"),
            ("magic", "S4"),
            ("encoding", "u1"),
            ("channels", "u1"),
            ("flags", "<u2"),
            ("sample_rate_hz", "<u4"),
            ("sequence", "<u4"),
            ("first_sample", "<u8"),
            ("captured_at_ns", "<u8"),
            ("payload_flags", "u1"),
            ("payload_size", ">u8" if large else "u1"),
            ("payload", "u1", (payload,)),
        ]
    )
    template = np.zeros(len(names), kind)
    template["id_flags"] = template["header_flags"] = zmtp.MORE
    template["id_size"] = size
    template["id"] = names
    template["header_size"] = HEADER_BYTES
    template["magic"] = MAGIC
    template["encoding"] = encoding
    template["channels"] = 1
    template["sample_rate_hz"] = sample_rate_hz
    template["payload_flags"] = zmtp.LONG if large else 0
    template["payload_size"] = payload
    return template
