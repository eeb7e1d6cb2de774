"""The bulk path against the one for single messages, which says what is right."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serd.protocol.tap import Flag
from serd.rows import RowPool
from serd.sources import lanes
from serd.sources.burst import Burst
from serd.sources.intake import IntakeOptions
from serd.types import Encoding
from tests.sources.intake_bench import Bench, FakeSource, Tap, ramp

Parts = tuple[bytes, bytes, bytes]

_STREAMS = 4


class FreeTap(Tap):
    """A tap whose headers nobody checks before they are sent."""

    def _parts(
        self, encoding: Encoding, flags: int, payload: bytes, first: int, captured_at_ns: int
    ) -> Parts:
        fields = (encoding, self.channels, flags, self.rate, self.sequence, first, captured_at_ns)
        self.sequence = (self.sequence + 1) % 2**32
        return self.stream.encode(), struct.pack("<4sBBHIIQQ", b"SRD1", *fields), payload


class Publisher:
    """Taps that do all that a tap may do, and more."""

    def __init__(self) -> None:
        rates = (8000, 8000, 16_000, 24_000)
        self.taps = [FreeTap(f"call-{number}", rate) for number, rate in enumerate(rates)]
        self.taps[0].sequence = 2**32 - 3
        self.sent: list[list[Parts]] = [[] for _ in self.taps]

    def act(self, number: int, act: str, size: int) -> list[Parts]:
        messages = self._act(self.taps[number], self.sent[number], act, size)
        self.sent[number] += messages
        return messages

    def _act(self, tap: Tap, sent: Sequence[Parts], act: str, size: int) -> list[Parts]:
        if tap.index >= 2**53:
            tap.index = 0
        samples = ramp(size, tap.index % 1000)
        captured = 10**18 + tap.index * 101
        match act:
            case "audio":
                return [tap.audio(samples, 0, Encoding.MULAW, captured)]
            case "untimed":
                return [tap.audio(samples, 0, Encoding.MULAW)]
            case "alaw" | "s16le" | "f32le":
                return [tap.audio(samples, 0, Encoding[act.upper()], captured)]
            case "lost":
                tap.audio(samples)
            case "silence":
                tap.index += size * 5
            case "double":
                return list(sent[-1:])
            case "old":
                return list(sent[-11:-10])
            case "swapped":
                two = [tap.audio(samples), tap.audio(samples)]
                return two[::-1]
            case "start":
                return [tap.audio(samples, Flag.START, Encoding.MULAW, captured)]
            case "restart":
                tap.sequence, tap.index = 7, size
                return [tap.audio(samples, Flag.START, Encoding.MULAW, captured)]
            case "astray":
                tap.sequence = (tap.sequence + size * 40) % 2**32
            case "back":
                tap.index = max(0, tap.index - size)
            case "discontinuity":
                tap.index += size
                return [tap.audio(samples, Flag.DISCONTINUITY, Encoding.MULAW)]
            case "pause" | "resume" | "end":
                return [tap.audio(samples, Flag[act.upper()], Encoding.MULAW, captured)]
            case "marker":
                return [tap.plain(Flag.NONE)]
            case "metadata":
                return [tap.metadata(call_id=f"c-{size}")]
            case "agent":
                return [tap.metadata(roles=["agent"])]
            case "rate":
                tap.rate = 24_000 - tap.rate if tap.rate != 24_000 else 24_000
            case "far":
                tap.index = 2**53 - 400
            case "ragged":
                whole = [tap.audio(samples, 0, Encoding.S16LE) for _ in range(4)]
                return [(stream, header, payload + b"x") for stream, header, payload in whole]
            case "two channels":
                stream, header, payload = tap.audio(samples, 0, Encoding.MULAW)
                return [(stream, header[:5] + b"\2" + header[6:], payload * 2)]
            case "bad magic":
                return [(tap.stream.encode(), b"XRD1" + bytes(28), b"")]
            case "short header":
                return [(tap.stream.encode(), tap.plain(0)[1][:31], b"")]
            case "long header":
                whole = [tap.audio(samples, 0, Encoding.MULAW) for _ in range(4)]
                return [(stream, header + b"x", payload) for stream, header, payload in whole]
            case "stray":
                stream, header, payload = tap.audio(samples, 0, Encoding.MULAW)
                tap.sequence, tap.index = (tap.sequence - 1) % 2**32, tap.index - size
                far = (tap.sequence + 5000) % 2**32
                return [(stream, header[:12] + struct.pack("<I", far) + header[16:], payload)]
            case "bad id":
                return [(b"\xff", *tap.audio(samples)[1:])]
            case "late clock":
                stream, header, payload = tap.audio(samples, 0, Encoding.MULAW)
                return [(stream, header[:24] + b"\xff" * 8, payload)]
        return [tap.audio(samples, 0, Encoding.MULAW, captured + n) for n in range(5)]


_PASSING = [
    "untimed", "alaw", "s16le", "f32le", "lost", "silence", "double", "old", "swapped", "start",
    "restart", "astray", "stray", "back", "discontinuity", "resume", "marker", "metadata", "rate",
    "far", "ragged", "bad magic", "short header", "long header", "bad id", "late clock",
]  # fmt: skip
_LASTING = ["pause", "agent", "end", "two channels"]

_acts = st.tuples(
    st.integers(0, _STREAMS - 1),
    st.one_of(
        st.just("audio"),
        st.just("run"),
        st.just("run"),
        st.sampled_from(_PASSING),
        st.sampled_from(_PASSING + _LASTING),
    ),
    st.sampled_from([160, 160, 160, 160, 160, 80, 0, 1, 257, 700]),
)


@dataclass(frozen=True)
class Round:
    """A burst and what happens behind it."""

    acts: list[tuple[int, str, int]]
    read: bool
    seconds: float


_rounds = st.lists(
    st.builds(
        Round,
        st.lists(_acts, max_size=12),
        st.booleans(),
        st.sampled_from([0.0, 0.02, 0.02, 16.0]),
    ),
    max_size=12,
)


def _deliver(bench: Bench, messages: Sequence[Parts], bulk: bool) -> list[int]:
    """Hand messages over; returns how many were taken at each try."""
    tries: list[int] = []
    rest = list(messages)
    while rest:
        if bulk:
            taken = _in_bulk(bench, rest)
        else:
            taken = 0
            while taken < len(rest) and bench.send(*rest[taken]):
                taken += 1
        tries.append(taken)
        rest = rest[taken:]
        if rest:
            bench.read()
            bench.table.flush_pending(bench.clock.monotonic_ns())
    return tries


def _in_bulk(bench: Bench, messages: Sequence[Parts]) -> int:
    ids, headers, payloads = map(list, zip(*messages, strict=True))
    burst = Burst(ids, headers, payloads)
    return bench.table.messages(bench.source, burst, (), bench.clock.monotonic_ns())


def _assert_same(pool: RowPool, other: RowPool) -> None:
    for ours, theirs in (
        (pool.ring.samples, other.ring.samples),
        (pool.ring.written, other.ring.written),
        (pool.ring.released, other.ring.released),
        (pool.limit, other.limit),
        (pool.active, other.active),
    ):
        assert np.array_equal(ours, theirs)
    for row in range(pool.rows):
        written = int(pool.ring.written[row])
        assert pool.captured_ns(row, written) == other.captured_ns(row, written)
        for end in range(max(1, written - pool.capacity + pool.frame), written + 1, 50):
            assert pool.arrived_ns(row, end) == other.arrived_ns(row, end)


@pytest.fixture(autouse=True)
def _always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_FEWEST", 2)


def _story(text: str, stream: int = 1) -> list[Round]:
    """Bursts of one stream: ``|`` ends one, ``!`` ends one after which the rows are read."""
    rounds: list[Round] = []
    acts: list[tuple[int, str, int]] = []
    for word in [*text.split(), "|"]:
        if word in "|!":
            rounds.append(Round(acts, word == "!", 0.02))
            acts = []
        else:
            act, _, size = word.partition(":")
            acts.append((stream, act.replace("_", " "), int(size or 160)))
    return rounds


@settings(max_examples=400, deadline=None)
@example(_story("discontinuity run run | old run"), False, 4096)
@example(_story("run | pause:0 | run"), False, 4096)
@example(_story("run audio audio ! run"), True, 1024)
@example(_story("run audio audio ! run"), False, 1024)
@example(_story("marker | run", stream=3), True, 4096)
@example(_story("run | stray | run"), True, 4096)
@example(_story("run | long_header run | run"), True, 4096)
@given(_rounds, st.booleans(), st.sampled_from([1024, 4096]))
def test_bulk_is_the_same_as_one_by_one(rounds: list[Round], lossless: bool, capacity: int) -> None:
    options = IntakeOptions(max_streams=_STREAMS, reorder_messages=3)
    single, bulk = (Bench(options, capacity, FakeSource(lossless=lossless)) for _ in range(2))
    publisher = Publisher()
    for one in rounds:
        messages = [parts for act in one.acts for parts in publisher.act(*act)]
        assert _deliver(bulk, messages, True) == _deliver(single, messages, False)
        for bench in (single, bulk):
            bench.clock.advance(one.seconds)
            bench.table.flush_pending(bench.clock.monotonic_ns())
            bench.table.sweep(bench.clock.monotonic_ns())
            if one.read:
                bench.read()
        for rate, pool in single.pools.items():
            _assert_same(pool, bulk.pools[rate])
        assert bulk.table.counts == single.table.counts
    for bench in (single, bulk):
        bench.table.close_source(bench.source, "draining")
        for _ in range(10):
            bench.read()
            bench.table.flush_pending(0)
    for rate, pool in single.pools.items():
        _assert_same(pool, bulk.pools[rate])
    assert bulk.controls == single.controls
    assert bulk.refused == single.refused
    assert bulk.table.counts == single.table.counts
    assert {
        name: np.concatenate(blocks).tolist() for name, blocks in bulk.audio.items() if blocks
    } == {name: np.concatenate(blocks).tolist() for name, blocks in single.audio.items() if blocks}
