"""Streams whose messages are taken by the hundred: the bulk path of the intake.

A *lane* is the standing of one stream in arrays: which header it expects next and where its
samples go. A message is *plain* when it is exactly what its lane expects: audio of the encoding,
rate and place that follow, without flags, of a size that several messages of the burst have, and
with room for it. Plain messages change nothing but samples, positions and times, so all of them
are handled together. Every other message goes the ordinary way, one by one, which says what is
to happen; this one is only a faster way to the same.

Who has the truth
-----------------
A stream's standing has one place at any time. While its tap has a lane, the lane has it, and the
tap's own fields (next index, end in the row, time of the last message, the sequencer's
expectation) are as they were when the lane was lent. `Lanes.settle` brings them up to date and
takes the lane back; it comes before anything else that looks at the tap or changes it. A lane is
lent to a tap when a message of a burst has none and the tap could have it: one channel, in a row
of its own rate, nothing held back, pending, paused or shed. None of that can change but by the
ordinary way.

A burst is split by streams, never through one: if one message of a stream is not plain, none of
that stream in this burst is. So the order within a stream is kept, and between streams it does
not matter, as a plain message touches its own row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np

from serd.audio import pcm
from serd.protocol.bulk import Headers, header_kind, read_headers
from serd.protocol.tap import MAX_SAMPLE, SEQUENCE_MODULUS
from serd.rows import RowPool
from serd.sources.burst import Burst, Payload
from serd.sources.stream import NO_LANE, TapStream
from serd.types import BoolArray, Encoding, Int64Array

# Messages of one size that are worth the fixed cost of the bulk path, which is that of ten
# messages the ordinary way.
_FEWEST = 12
# Longer messages are worth their own way, and few enough not to matter.
_MOST_SAMPLES = 4096
_SEQUENCE_MASK = SEQUENCE_MODULUS - 1

_ENCODINGS = {
    header_kind(encoding): encoding for encoding in (Encoding.S16LE, Encoding.MULAW, Encoding.ALAW)
}


class Plan(NamedTuple):
    """The plain messages of a burst, ``[k]`` each, ordered by lane and then by arrival.

    Attributes
    ----------
    number
        int64, place in the burst.
    lane
        int64.
    start
        int64, ring index of the first sample.
    samples
        int64.
    alike
        int64: messages with equal numbers have equal pool, encoding and size.
    sequence, first_sample, captured_at_ns
        From the header.
    """

    number: Int64Array
    lane: Int64Array
    start: Int64Array
    samples: Int64Array
    alike: Int64Array
    sequence: Int64Array
    first_sample: Int64Array
    captured_at_ns: Int64Array

    def only(self, wanted: BoolArray) -> Plan:
        """Some of it, bool ``[k]``."""
        return self if wanted.all() else Plan(*(column[wanted] for column in self))


_NOTHING = Plan(*(np.empty(0, np.int64) for _ in Plan._fields))


class Lanes:
    """The lanes of all streams; one for every row, so they never run out.

    Parameters
    ----------
    pools
        Row pools of all rates.
    """

    def __init__(self, pools: Iterable[RowPool]) -> None:
        self._pools = list(pools)
        self._bounds = np.cumsum([0, *(pool.rows for pool in self._pools)]).tolist()
        count = self._bounds[-1]
        self._index: dict[str, dict[bytes, int]] = {}
        self._raw_ids: dict[int, bytes] = {}
        self._kind = np.zeros(count, np.uint64)
        self._rate = np.zeros(count, np.uint32)
        self._width: Int64Array = np.ones(count, np.int64)
        self._expected: Int64Array = np.zeros(count, np.int64)
        self._position: Int64Array = np.zeros(count, np.int64)
        self._heard_ns: Int64Array = np.zeros(count, np.int64)
        # Encoding and pool in one number, below `_groups`.
        self._group: Int64Array = np.zeros(count, np.int64)
        self._groups = len(self._pools) * len(Encoding)

    # lending

    def lend(self, tap: TapStream, raw_id: bytes, kind: int) -> int:
        """Give a tap its lane for audio of a header kind; `NO_LANE` if it cannot have one now."""
        encoding, channel, sequencer = _ENCODINGS.get(kind), tap.plain_row(), tap.sequencer
        if encoding is None or channel is None or sequencer is None:
            return NO_LANE
        expected = sequencer.expects(tap.sample_rate_hz, 1)
        if expected is None:
            return NO_LANE
        pool = self._pools.index(channel.pool)
        lane: int = self._bounds[pool] + channel.row
        assert lane not in self._raw_ids, "a row has one tap, whose lane is settled with it"
        self._raw_ids[lane] = raw_id
        self._index[tap.source.name][raw_id] = lane
        self._kind[lane] = kind
        self._rate[lane] = tap.sample_rate_hz
        self._width[lane] = encoding.sample_bytes
        self._expected[lane], self._position[lane] = expected
        self._heard_ns[lane] = tap.last_ns
        self._group[lane] = pool * len(Encoding) + encoding
        tap.lane = lane
        return lane

    def settle(self, tap: TapStream) -> None:
        """Take back the lane of a tap and bring the tap's own fields up to date."""
        lane, sequencer = tap.lane, tap.sequencer
        assert sequencer is not None, "only taps with a sequencer have lanes"
        position = int(self._position[lane])
        tap.advance(position - sequencer.position, int(self._heard_ns[lane]))
        sequencer.go_on(int(self._expected[lane]), position)
        del self._index[tap.source.name][self._raw_ids.pop(lane)]
        tap.lane = NO_LANE

    def heard_ns(self, tap: TapStream) -> int:
        """When the last message of a tap came, whether it has a lane or not."""
        return tap.last_ns if tap.lane == NO_LANE else int(self._heard_ns[tap.lane])

    # the bulk path

    def take(
        self,
        source: str,
        burst: Burst,
        find: Callable[[bytes], TapStream | None],
        ordinary: Callable[[Sequence[bytes]], bool],
        now_ns: int,
    ) -> tuple[int, int]:
        """Take a burst: the plain messages together, each of the others by `ordinary`.

        Parameters
        ----------
        find
            The open tap of the source by the id in a message, None if there is none.
        ordinary
            Takes the parts of a message; False if the source has to wait with it.

        Returns
        -------
        taken
            Messages taken, from the front.
        plain
            How many of them were plain.
        """
        taken = len(burst)
        if taken < _FEWEST:
            for number in range(taken):
                if not ordinary(burst.parts(number)):
                    return number, 0
            return taken, 0
        plan = self._plan(source, burst, find)
        others = np.ones(taken, np.bool_)
        others[plan.number] = False
        # The others come first, as one of them may find that the source has to wait. Then what
        # came after it stays with the source, as if nobody had looked at it.
        for number in np.flatnonzero(others).tolist():
            if not ordinary(burst.parts(number)):
                taken = number
                break
        plan = plan.only(plan.number < taken)
        if len(plan.number):
            self._carry_out(plan, burst.payloads, now_ns)
        return taken, len(plan.number)

    def _plan(self, source: str, burst: Burst, find: Callable[[bytes], TapStream | None]) -> Plan:
        """Find out what of a burst is plain. Changes nothing but who has a lane."""
        headers = read_headers(burst.headers)
        lanes = self._lanes(source, burst.ids, headers, find)
        sizes = np.fromiter(map(len, burst.payloads), np.int64, len(burst))
        number = np.flatnonzero(lanes != NO_LANE)
        if len(number) < _FEWEST:
            return _NOTHING
        number = number[np.argsort(lanes[number], kind="stable")]
        lane, size = lanes[number], sizes[number]
        samples = size // self._width[lane]
        alike = size * self._groups + self._group[lane]
        # What each message of a stream can expect after those of the same stream before it.
        leaders = np.flatnonzero(_differs(lane))
        counts = np.diff(leaders, append=len(lane))
        leader = leaders.repeat(counts)
        rank = np.arange(len(lane)) - leader
        ahead = samples.cumsum() - samples
        ahead -= ahead[leader]
        written, free = self._room(lane)
        first = headers.first_sample[number]
        sequence = headers.sequence[number].astype(np.int64)
        captured = headers.captured_at_ns[number]
        plain: BoolArray = headers.kind[number] == self._kind[lane]
        plain &= headers.sample_rate_hz[number] == self._rate[lane]
        plain &= sequence == self._expected[lane] + rank & _SEQUENCE_MASK
        plain &= first == self._position[lane] + ahead
        plain &= first <= MAX_SAMPLE - samples
        plain &= captured >= 0
        plain &= samples * self._width[lane] == size
        plain &= (samples > 0) & (samples <= np.minimum(free - ahead, _MOST_SAMPLES))
        plain &= _common(alike)
        if not plain.all():
            plain = np.logical_and.reduceat(plain, leaders).repeat(counts)
        return Plan(number, lane, written + ahead, samples, alike, sequence, first, captured).only(
            plain
        )

    def _lanes(
        self,
        source: str,
        ids: Sequence[bytes],
        headers: Headers,
        find: Callable[[bytes], TapStream | None],
    ) -> Int64Array:
        index = self._index.setdefault(source, {})
        lanes = np.fromiter(map(index.get, ids, repeat(NO_LANE)), np.int64, len(ids))
        # A stream's first message decides for all of it in this burst.
        decided: dict[bytes, int] = {}
        for number in np.flatnonzero(lanes == NO_LANE).tolist():
            raw_id = ids[number]
            if raw_id not in decided:
                tap = find(raw_id)
                decided[raw_id] = (
                    NO_LANE if tap is None else self.lend(tap, raw_id, int(headers.kind[number]))
                )
            lanes[number] = decided[raw_id]
        return lanes

    def _of_pools(self, lane: Int64Array) -> Iterator[tuple[RowPool, int, slice]]:
        """Each pool, its first lane and its part of lanes in ascending order."""
        cuts = np.searchsorted(lane, self._bounds).tolist()
        for pool, first, start, end in zip(self._pools, self._bounds, cuts, cuts[1:], strict=False):
            if start < end:
                yield pool, first, slice(start, end)

    def _room(self, lane: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Ring index of the next sample, and room, of lanes in ascending order."""
        written, free = np.empty_like(lane), np.empty_like(lane)
        for pool, first, part in self._of_pools(lane):
            rows = lane[part] - first
            written[part] = pool.ring.written[rows]
            free[part] = pool.ring.capacity - written[part] + pool.ring.released[rows]
        return written, free

    def _carry_out(self, plan: Plan, payloads: Sequence[Payload], now_ns: int) -> None:
        """Bring plain messages into their rows."""
        for alike in set(plan.alike.tolist()):
            self._put(plan.only(plan.alike == alike), payloads, alike % self._groups, now_ns)
        self._anchor(plan)
        last = np.flatnonzero(_differs(plan.lane[::-1])[::-1])
        lane, ends = plan.lane[last], (plan.start + plan.samples)[last]
        for pool, first, part in self._of_pools(lane):
            pool.publish(lane[part] - first, ends[part])
        self._expected[lane] = plan.sequence[last] + 1 & _SEQUENCE_MASK
        self._position[lane] = (plan.first_sample + plan.samples)[last]
        self._heard_ns[lane] = now_ns

    def _put(self, plan: Plan, payloads: Sequence[Payload], group: int, now_ns: int) -> None:
        """Samples of messages that are alike."""
        number, encoding = divmod(group, len(Encoding))
        pool = self._pools[number]
        rows = plan.lane - self._bounds[number]
        block = b"".join([payloads[number] for number in plan.number.tolist()])
        samples = pcm.decode(block, Encoding(encoding), 1).reshape(len(rows), -1)
        pool.put(rows, plan.start, samples, now_ns)

    def _anchor(self, plan: Plan) -> None:
        """Note the newest time of capture of each stream that has one."""
        timed = np.flatnonzero(plan.captured_at_ns)
        timed = timed[_differs(plan.lane[timed][::-1])[::-1]]
        lane, start, captured = plan.lane[timed], plan.start[timed], plan.captured_at_ns[timed]
        for pool, first, part in self._of_pools(lane):
            pool.anchor_all(lane[part] - first, start[part], captured[part])


def _differs(lane: Int64Array) -> BoolArray:
    """Where a lane is not the same as the one before it."""
    differs = np.ones(len(lane), np.bool_)
    np.not_equal(lane[1:], lane[:-1], out=differs[1:])
    return differs


def _common(alike: Int64Array) -> BoolArray:
    """Where enough messages are alike: a peer cannot make each one cost what many should share."""
    if len(alike) and (alike == alike[0]).all():
        return np.full(len(alike), len(alike) >= _FEWEST)
    _, inverse, counts = np.unique(alike, return_inverse=True, return_counts=True)
    return (counts >= _FEWEST)[inverse]
