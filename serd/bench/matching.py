"""Which expected segments had their event, when, and when what decided them was sent."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from serd.bench.expected import Expected
from serd.bench.figures import Gaps
from serd.bench.generator import Played
from serd.bench.receiver import Receiver
from serd.bench.tape import SLOT_NS, SLOTS, SPARED_AT_END, Streams, stream_number
from serd.protocol.events import EmotionEvent, GapEvent
from serd.types import BoolArray, Int64Array


class SendTimes:
    """When each message left its tap.

    Parameters
    ----------
    played
        What the generators did; stream `n` was played by number ``n % len(played)``.
    due_ns
        Monotonic time at which the run began.
    block
        Samples of a message.
    silent
        bool ``[conversations, blocks]``: what the taps left out; None where they sent everything.
    """

    def __init__(
        self,
        streams: Streams,
        played: list[Played],
        due_ns: int,
        block: int,
        silent: BoolArray | None,
    ) -> None:
        self._streams = streams
        self._played = played
        self._due_ns = due_ns
        self._block = block
        # Of a message that was left out the daemon learns from the next one.
        self._following: Int64Array | None = None
        if silent is not None:
            length = int(streams.blocks.max())
            columns = np.arange(length)
            places = np.where(silent[:, columns % silent.shape[1]], length, columns)
            self._following = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]

    def tick_ns(self, tick: int) -> int:
        """When a tick of the run was due."""
        return self._due_ns + tick * SLOTS * SLOT_NS

    def sent_ns(self, stream: Int64Array, end: Int64Array) -> Int64Array:
        """Monotonic time, int64 ``[n]``, at which the sample before `end` of each stream left.

        Parameters
        ----------
        stream, end
            int64 ``[n]``; samples of the stream, from 1.
        """
        streams = self._streams
        message = (end - 1) // self._block
        if self._following is not None:
            following = self._following[streams.conversation[stream], message]
            spared = streams.blocks[stream] - SPARED_AT_END
            message = np.maximum(message, np.minimum(following, spared))
        tick = streams.join[stream] + message
        slot = tick * SLOTS + streams.slot[stream]
        sent: Int64Array = np.zeros(len(stream), np.int64)
        parts = len(self._played)
        for part, played in enumerate(self._played):
            mine = np.flatnonzero(stream % parts == part)
            if played.delay.size:
                column = np.argsort(played.numbers)[stream[mine] // parts]
                slot[mine] += played.delay[tick[mine], column]
            sent[mine] = played.sent_ns[slot[mine]]
        # Where all messages of a moment were lost on purpose: when they would have left.
        return np.where(sent > 0, sent, self._due_ns + slot * SLOT_NS)


@dataclass(frozen=True)
class Matched:
    """The events of expected segments.

    Attributes
    ----------
    found
        bool ``[segments]``: whether the event came.
    at_ns
        int64 ``[segments]``: monotonic time at which it came; 0 where it did not.
    received
        Emotion events in all.
    unexpected
        int64: the streams of events that belong to no expected segment, one entry an event.
    """

    found: BoolArray
    at_ns: Int64Array
    received: int
    unexpected: Int64Array


def match(expected: Expected, receiver: Receiver) -> Matched:
    """Hold the emotion events against what must come, by stream and exact position."""
    arrived: dict[tuple[int, int, int], int] = {}
    received = 0
    for at_ns, event in receiver.events("emotion"):
        assert isinstance(event, EmotionEvent), "selected by topic"
        place = stream_number(event.stream), event.start_sample, event.end_sample
        arrived.setdefault(place, at_ns)
        received += 1
    places = zip(
        expected.stream.tolist(), expected.start.tolist(), expected.end.tolist(), strict=True
    )
    came_ns = np.array([arrived.pop(place, 0) for place in places], np.int64)
    unexpected = np.array([stream for stream, _, _ in arrived], np.int64)
    return Matched(came_ns > 0, came_ns, received, unexpected)


@dataclass
class GapsOfReason:
    """Gap events of one reason.

    `last_ns` is the newest arrival for each stream, `stream_ms` how much each lost.
    """

    events: int = 0
    messages: int = 0
    last_ns: dict[int, int] = field(default_factory=dict)
    stream_ms: dict[int, float] = field(default_factory=dict)

    @property
    def lost_ms(self) -> float:
        """How much was lost in all."""
        return sum(self.stream_ms.values())

    def figures(self) -> Gaps:
        """What is told of them."""
        return Gaps(self.events, self.messages, len(self.last_ns), round(self.lost_ms, 1))


def gaps_by_reason(receiver: Receiver) -> dict[str, GapsOfReason]:
    """All gap events."""
    found: dict[str, GapsOfReason] = {}
    for at_ns, event in receiver.events("gap"):
        assert isinstance(event, GapEvent), "selected by topic"
        gap = found.setdefault(event.reason, GapsOfReason())
        gap.events += 1
        gap.messages += event.messages
        stream = stream_number(event.stream)
        gap.stream_ms[stream] = gap.stream_ms.get(stream, 0.0) + event.lost_ms
        gap.last_ns[stream] = at_ns
    return found
