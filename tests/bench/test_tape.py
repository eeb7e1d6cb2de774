"""The generator's bytes are those of any other tap."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.bench.run import Settings, plan_streams
from serd.bench.tape import SLOT_NS, SLOTS, Line, Piece, Streams, Tape, stream_number
from serd.protocol.tap import Flag, TapMessage, decode_message
from serd.types import Encoding

BEGAN_NS = 1_700_000_000_000_000_000


def parse(content: memoryview) -> list[TapMessage]:
    """Messages in a run of ZMTP frames."""
    found, parts, at = [], [], 0
    while at < len(content):
        flags = content[at]
        if flags & 2:
            size, at = int.from_bytes(content[at + 1 : at + 9], "big"), at + 9
        else:
            size, at = content[at + 1], at + 2
        parts.append(bytes(content[at : at + size]))
        at += size
        if not flags & 1:
            found.append(decode_message(parts))
            parts = []
    assert not parts
    return found


def made_streams(join: list[int], blocks: list[int], taps: int = 2) -> Streams:
    number = np.arange(len(join))
    return Streams(
        number, number % 3, np.array(join), np.array(blocks), number % SLOTS, number % taps
    )


def play(
    streams: Streams, line: Line, encoding: Encoding = Encoding.MULAW, seed: int = 1
) -> tuple[Tape, list[Piece], np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    rng = np.random.default_rng(seed)
    rate = 8000 if encoding is Encoding.MULAW else 16000
    audio = rng.integers(0, 256, (3, 7, rate // 50 * encoding.sample_bytes), np.uint8)
    tape = Tape(streams, audio, rng.random((3, 7)) < 0.5, encoding, rate, line, seed)
    pieces = [piece for tick in range(streams.ticks) for piece in tape.tick(tick, BEGAN_NS)]
    return tape, pieces, audio


@pytest.mark.parametrize("encoding", [Encoding.MULAW, Encoding.S16LE])
def test_every_message_is_what_the_protocol_says(encoding: Encoding) -> None:
    streams = made_streams([0, 3, 5], [10, 4, 1])
    tape, pieces, audio = play(streams, Line(), encoding)
    heard: dict[int, list[TapMessage]] = defaultdict(list)
    block = 160 if encoding is Encoding.MULAW else 320
    for piece in pieces:
        messages = parse(piece.content)
        assert len(messages) == piece.messages
        for message in messages:
            number = stream_number(message.stream)
            count = len(heard[number])
            header = message.header
            assert piece.tap == streams.tap[number]
            assert piece.slot == (streams.join[number] + count) * SLOTS + streams.slot[number]
            assert header.encoding is encoding
            assert header.sequence == count
            assert header.first_sample == count * block
            # Its first sample was captured a tick before the message left.
            assert header.captured_at_ns == BEGAN_NS + (piece.slot - SLOTS) * SLOT_NS
            assert bytes(message.payload) == audio[number % 3, count % 7].tobytes()
            heard[number].append(message)
    assert [len(heard[number]) for number in range(3)] == [10, 4, 1]
    assert tape.messages == 15
    for messages in heard.values():
        flags = [message.header.flags for message in messages]
        assert flags[0] & Flag.START
        assert flags[-1] & Flag.END
        assert not any(flags[1:-1])


@given(
    lives=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 120)), min_size=1, max_size=12),
    jitter_ms=st.sampled_from([0.0, 7.0, 90.0]),
    loss=st.sampled_from([0.0, 0.3]),
    suppress=st.booleans(),
    seed=st.integers(0, 100),
)
def test_what_a_line_does_is_counted_and_keeps_the_order(
    lives: list[tuple[int, int]], jitter_ms: float, loss: float, suppress: bool, seed: int
) -> None:
    streams = made_streams([join for join, _ in lives], [blocks for _, blocks in lives])
    tape, pieces, _ = play(streams, Line(jitter_ms, loss, suppress), seed=seed)
    assert tape.messages == sum(piece.messages for piece in pieces)
    assert tape.messages + tape.withheld + tape.suppressed == int(streams.blocks.sum())
    by_slot = sorted(pieces, key=lambda piece: piece.slot)
    heard: dict[int, list[tuple[int, TapMessage]]] = defaultdict(list)
    for piece in by_slot:
        for message in parse(piece.content):
            heard[stream_number(message.stream)].append((piece.slot, message))
    missing = 0
    for number, messages in heard.items():
        headers = [message.header for _, message in messages]
        assert headers[0].flags & Flag.START
        assert headers[-1].flags & Flag.END
        assert all(a.first_sample < b.first_sample for a, b in pairwise(headers))
        missing += headers[-1].sequence + 1 - len(headers)
        for slot, message in messages:
            block = message.header.first_sample // 160
            due = (streams.join[number] + block) * SLOTS + streams.slot[number]
            assert slot >= due
            if tape.delay is None:
                assert slot == due
            else:
                column = tape.streams.number.tolist().index(number)
                assert tape.delay[streams.join[number] + block, column] == slot - due
    # Loss is a jump of the sequence; suppressed silence is none.
    assert missing == tape.withheld


@given(streams=st.integers(1, 12_000), surge=st.integers(0, 300), seconds=st.floats(1, 30))
def test_streams_join_and_leave_one_by_one(streams: int, surge: int, seconds: float) -> None:
    settings = Settings(streams, seconds, warm_up_s=5.0, surge=surge)
    planned = plan_streams(settings)
    ends = planned.join + planned.blocks
    comes, goes = settings.surge_ticks
    assert len(planned.number) == streams + surge
    assert planned.join[0] == 0
    assert (planned.join[1:streams] >= 100).all()
    assert (planned.join[:streams] <= 250).all()
    assert ends[0] == settings.ticks
    assert (np.diff(ends[:streams]) >= 0).all()
    assert ends[streams - 1] == settings.ticks + (settings.leave_ticks if streams > 1 else 0)
    assert ends[:streams].max() * 0.02 <= settings.longest_s + 1e-9
    assert (planned.join[streams:] >= comes).all()
    assert (planned.blocks > 0).all()
    assert (ends[streams:] <= goes).all()
    assert not surge or ends[-1] == goes
    for part in range(settings.generators):
        mine = planned.share(part, settings.generators)
        counts = np.bincount(mine.slot, minlength=SLOTS)
        assert counts.max() - counts.min() <= 1
