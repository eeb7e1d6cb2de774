"""No sample behind a pause is heard: whatever the order, the load and the way of the messages.

Samples that may be heard are `SPOKEN`. Those between the pause number k, from 0, and its resume
are (k + 1) times `HIDDEN`, so that what was heard tells which pause it belongs to.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serd.protocol.tap import Flag
from serd.rows import Paused, Resumed
from serd.sources.burst import Burst
from serd.sources.intake import IntakeOptions
from serd.types import Int16Array
from tests.sources.intake_bench import Bench, FakeSource, Tap

WINDOW = IntakeOptions().reorder_messages
BLOCK = 160
SPOKEN = 1000
HIDDEN = -1001

Parts = tuple[bytes, bytes, bytes]


class Sent(NamedTuple):
    """A message, and the number of the pause that it asks for."""

    parts: Parts
    pause: int | None


def block(value: int) -> Int16Array:
    return np.full(BLOCK, value, np.int16)


def conversation(runs: list[tuple[int, int, bool]], rate: int = 8000) -> list[Sent]:
    """For each run: so many messages to be heard, a pause, so many that must not be, a resume.

    The third of a run is whether the flags are on messages with samples or on their own.
    """
    tap = Tap(rate=rate)
    sent = [Sent(tap.audio(block(SPOKEN), flags=Flag.START), None)]
    for number, (open_, closed, with_samples) in enumerate(runs):
        sent += [Sent(tap.audio(block(SPOKEN)), None) for _ in range(open_)]
        hidden = HIDDEN * (number + 1)
        if with_samples:
            sent.append(Sent(tap.audio(block(hidden), flags=Flag.PAUSE), number))
            sent += [Sent(tap.audio(block(hidden)), None) for _ in range(closed)]
            sent.append(Sent(tap.audio(block(SPOKEN), flags=Flag.RESUME), None))
        else:
            sent.append(Sent(tap.plain(Flag.PAUSE), number))
            sent += [Sent(tap.audio(block(hidden)), None) for _ in range(closed)]
            sent.append(Sent(tap.plain(Flag.RESUME), None))
    return sent


RUNS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.booleans()), min_size=1, max_size=4
)


def shuffled(sent: list[Sent], delays: list[int]) -> list[Sent]:
    """Each message overtaken by as many as its delay, at most."""
    places = [at + delays[at % len(delays)] for at in range(len(sent))]
    return [sent[at] for at in sorted(range(len(sent)), key=lambda at: (places[at], at))]


def hand_over(bench: Bench, sent: list[Sent], sizes: list[int]) -> None:
    """Messages in bursts, of which the long ones go the way of the bulk."""
    at = turn = 0
    while at < len(sent):
        now = sent[at : at + sizes[turn % len(sizes)]]
        ids, headers, payloads = zip(*(message.parts for message in now), strict=True)
        burst = Burst(list(ids), list(headers), list(payloads))
        taken = bench.table.messages(bench.source, burst, (), bench.clock.monotonic_ns())
        at += taken
        turn += 1
        bench.read()
        bench.table.flush_pending(bench.clock.monotonic_ns())


@settings(max_examples=100, deadline=None)
@given(
    RUNS,
    st.lists(st.integers(0, WINDOW), min_size=1, max_size=13),
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([600, 16_000]),
    st.sampled_from([8000, 16000, 44100]),
)
def test_order_load_and_bulk_let_nothing_through(
    runs: list[tuple[int, int, bool]],
    delays: list[int],
    sizes: list[int],
    lossless: bool,
    capacity: int,
    rate: int,
) -> None:
    bench = Bench(capacity=capacity, source=FakeSource(lossless=lossless))
    # The first message goes first: before it there is no order.
    first, *rest = conversation(runs, rate)
    hand_over(bench, [first, *shuffled(rest, delays)], sizes)
    heard = bench.heard("call")
    if rate == 44100:
        # About a step the resampler's filter rings by a tenth.
        assert heard.min() > -200
    else:
        assert set(heard.tolist()) <= {0, SPOKEN}
    if lossless and rate != 44100:
        spoken = sum(message.parts[2].count(SPOKEN.to_bytes(2, "little")) for message in rest)
        assert int((heard == SPOKEN).sum()) == spoken + BLOCK


@settings(max_examples=100, deadline=None)
@given(RUNS, st.integers(0, 2**32), st.sampled_from([0, 0.1, 0.3]), st.sampled_from([0, 0.2]))
def test_whatever_is_lost_doubled_or_late_nothing_is_heard_once_a_pause_is_here(
    runs: list[tuple[int, int, bool]],
    seed: int,
    loss: float,
    doubles: float,
) -> None:
    # Hundreds of draws from hypothesis itself would cost more than what is tested.
    chance = random.Random(seed).random
    sent = conversation(runs)
    # Copies come soon after: old ones by the hundred are a publisher that numbers anew.
    arriving = [
        message for message in sent[1:] if chance() >= loss for _ in range(1 + (chance() < doubles))
    ]
    delays = [int(chance() * 3 * WINDOW) for _ in arriving]
    bench = Bench()
    bench.send(*sent[0].parts)
    bench.read()
    here: set[int] = set()
    for message in shuffled(arriving, delays or [0]):
        bench.send(*message.parts)
        if message.pause is not None:
            here.add(message.pause)
        bench.audio["call"].clear()
        new = bench.heard("call")
        assert not {HIDDEN * (number + 1) for number in here} & set(new.tolist())


def test_a_pause_that_comes_too_late_is_heeded_and_one_before_a_resume_is_not() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(block(SPOKEN)))
    late = tap.plain(Flag.PAUSE)
    for _ in range(WINDOW + 1):
        bench.send(*tap.audio(block(SPOKEN)))
    bench.send(*late)
    bench.send(*tap.audio(block(HIDDEN)))
    assert set(bench.heard("call").tolist()) == {SPOKEN}
    bench.send(*tap.plain(Flag.RESUME))
    bench.send(*late)
    bench.send(*tap.audio(block(2)))
    assert bench.heard("call")[-1] == 2


@pytest.mark.parametrize("fault", ["no payload part", "resume too", "ragged", "metadata", "rate"])
def test_a_pause_in_a_malformed_message_is_heeded(fault: str) -> None:
    bench, tap = Bench(), Tap()
    messages = [Sent(tap.audio(block(SPOKEN)), None) for _ in range(40)]
    hand_over(bench, messages, [20])
    stream, header, _ = tap.plain(Flag.PAUSE)
    parts = {
        "no payload part": (stream, header),
        "resume too": (stream, header[:6] + bytes([Flag.PAUSE | Flag.RESUME]) + header[7:], b""),
        "ragged": (stream, header[:4] + b"\1" + header[5:], b"abc"),
        "metadata": (stream, header[:6] + bytes([Flag.PAUSE | Flag.METADATA]) + header[7:], b"{"),
        "rate": (stream, header[:8] + b"\0\0\0\0" + header[12:], b""),
    }[fault]
    bench.send(*parts)
    hand_over(bench, [Sent(tap.audio(block(HIDDEN)), None) for _ in range(40)], [40])
    assert set(bench.heard("call").tolist()) == {SPOKEN}
    malformed = [n for name, n in bench.table.counts.items() if name.startswith("malformed.")]
    assert malformed == [1]


@pytest.mark.parametrize("how", ["timeout", "sequence", "format"])
def test_a_pause_outlasts_every_new_life_that_the_tap_did_not_announce(how: str) -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(block(SPOKEN)))
    bench.send(*tap.plain(Flag.PAUSE))
    if how == "timeout":
        bench.clock.advance(31)
        bench.table.sweep(bench.clock.monotonic_ns())
    elif how == "sequence":
        tap.sequence += 1_000_000
    else:
        tap.rate = 16000
    for _ in range(20):
        bench.send(*tap.audio(block(HIDDEN)))
    bench.send(*tap.audio(block(2), flags=Flag.RESUME))
    assert set(bench.heard("call").tolist()) == {SPOKEN, 2}


def test_a_resume_before_the_newest_pause_does_not_lift_it() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(block(SPOKEN)))
    missing = tap.audio(block(SPOKEN))
    bench.send(*tap.plain(Flag.RESUME))
    stream, header, _ = tap.plain(Flag.PAUSE)
    bench.send(stream, header)
    bench.send(*missing)
    for _ in range(WINDOW + 2):
        bench.send(*tap.audio(block(HIDDEN)))
    assert set(bench.heard("call").tolist()) == {SPOKEN}


def test_a_stream_may_begin_paused() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(block(HIDDEN), flags=Flag.START | Flag.PAUSE))
    bench.send(*tap.audio(block(SPOKEN), flags=Flag.RESUME))
    assert set(bench.heard("call").tolist()) == {SPOKEN}
    assert bench.kinds("call") == ["Open", "Paused", "Resumed"]


def test_a_channel_that_is_opened_in_a_pause_is_paused() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.metadata(Flag.START, roles=["agnet"]))
    bench.send(*tap.audio(block(HIDDEN)))
    bench.send(*tap.plain(Flag.PAUSE))
    bench.send(*tap.metadata(roles=["customer"]))
    bench.send(*tap.audio(block(HIDDEN)))
    bench.send(*tap.audio(block(SPOKEN), flags=Flag.RESUME))
    assert set(bench.heard("call").tolist()) == {SPOKEN}
    kinds = [type(control) for _, control in bench.controls]
    assert kinds[-2:] == [Paused, Resumed]


def test_a_burst_right_behind_a_pause_is_not_heard() -> None:
    bench, tap = Bench(), Tap()
    hand_over(bench, [Sent(tap.audio(block(SPOKEN)), None) for _ in range(40)], [40])
    bench.send(*tap.plain(Flag.PAUSE))
    hand_over(bench, [Sent(tap.audio(block(HIDDEN)), None) for _ in range(40)], [40])
    assert set(bench.heard("call").tolist()) == {SPOKEN}
    assert bench.table.counts["paused.samples"] == 40 * BLOCK


def test_a_pause_that_is_repeated_is_one() -> None:
    bench, tap = Bench(), Tap()
    bench.send(*tap.audio(block(SPOKEN)))
    for _ in range(3):
        bench.send(*tap.audio(block(HIDDEN), flags=Flag.PAUSE))
    bench.send(*tap.audio(block(SPOKEN), flags=Flag.RESUME))
    assert bench.kinds("call") == ["Open", "Paused", "Resumed"]
    starts = [control.at for _, control in bench.controls]
    assert all(one <= other for one, other in pairwise(starts))
