"""Order, loss, silence, duplicates and restarts of one stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.protocol.sequencer import (
    MAX_DROPOUT,
    MAX_MISORDER,
    RESTART_RUN,
    Deliver,
    Duplicate,
    Late,
    Lost,
    Restart,
    Sequencer,
    Silence,
)
from serd.protocol.tap import SEQUENCE_MODULUS, Flag, Header
from serd.types import Encoding

WINDOW = 8
BLOCK = 160


def header(
    sequence: int,
    first_sample: int,
    flags: int = 0,
    *,
    rate: int = 8000,
    channels: int = 1,
    captured_at_ns: int = 0,
) -> Header:
    return Header(
        Encoding.S16LE,
        channels,
        flags,
        rate,
        sequence % SEQUENCE_MODULUS,
        first_sample,
        captured_at_ns,
    )


def message(number: int, base: int = 0, flags: int = 0) -> tuple[Header, int, int]:
    return header(base + number, number * BLOCK, flags), BLOCK, number


def run(sequencer: Sequencer[int], messages: Iterable[tuple[Header, int, int]]) -> list[Any]:
    return [step for one in messages for step in sequencer.push(*one)]


def delivered(steps: Sequence[Any]) -> list[int]:
    return [step.payload for step in steps if isinstance(step, Deliver)]


def first(steps: Sequence[Any]) -> Any:
    return steps[0]


def of(kind: type, steps: Sequence[Any]) -> list[Any]:
    return [step for step in steps if isinstance(step, kind)]


def test_messages_in_order_pass_straight_through() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    for number in range(100):
        one = message(number)
        assert list(sequencer.push(*one)) == [Deliver(*one)]
        assert not sequencer.waiting
    assert sequencer.position == 100 * BLOCK


def test_a_stream_may_be_joined_anywhere() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    assert delivered(run(sequencer, [message(1000), message(1001)])) == [1000, 1001]


@pytest.mark.parametrize("base", [0, SEQUENCE_MODULUS - 5])
def test_an_overtaken_message_is_put_back(base: int) -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    steps = run(sequencer, [message(n, base) for n in (0, 2, 3, 4, 5, 6, 7, 8, 9, 1, 10)])
    assert delivered(steps) == list(range(11))
    assert len(steps) == 11


def test_a_message_overtaken_by_more_than_the_window_is_lost_and_then_late() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    steps = run(sequencer, [message(n) for n in (0, 2, 3, 4, 5, 6, 7, 8, 9)])
    assert (delivered(steps), sequencer.waiting) == ([0], True)
    steps = list(sequencer.push(*message(10)))
    assert steps[0] == Lost(BLOCK, BLOCK, 1)
    assert delivered(steps) == list(range(2, 11))
    assert not sequencer.waiting
    assert of(Late, list(sequencer.push(*message(1)))) == [Late(*message(1))]


def test_a_second_copy_is_a_duplicate_before_and_after_delivery() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    steps = run(sequencer, [message(n) for n in (0, 2, 2, 0, 1, 1, 2, 3)])
    assert delivered(steps) == [0, 1, 2, 3]
    assert [step.header.sequence for step in of(Duplicate, steps)] == [2, 0, 1, 2]
    assert not of(Late, steps)


def test_what_was_sent_before_the_stream_was_joined_is_late() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(10)])
    assert of(Late, run(sequencer, [message(9)]))


def test_loss_is_measured_in_samples_and_messages() -> None:
    sequencer: Sequencer[int] = Sequencer(0)
    steps = run(sequencer, [message(0), message(5)])
    assert steps[1] == Lost(BLOCK, 4 * BLOCK, 4)


def test_two_losses_that_wait_together_are_told_apart() -> None:
    sequencer: Sequencer[int] = Sequencer(4)
    steps = run(sequencer, [message(n) for n in (0, 2, 4, 5, 6, 7, 8)])
    assert of(Lost, steps) == [Lost(BLOCK, BLOCK, 1), Lost(3 * BLOCK, BLOCK, 1)]
    assert delivered(steps) == [0, 2, 4, 5, 6, 7, 8]


def test_a_jump_of_the_index_alone_is_silence() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(0)])
    assert first(sequencer.push(header(1, 8000), BLOCK, 1)) == Silence(BLOCK, 8000 - BLOCK)


def test_a_jump_with_the_discontinuity_flag_is_loss_before_the_tap() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(0)])
    steps = list(sequencer.push(header(1, 8000, Flag.DISCONTINUITY), BLOCK, 1))
    assert steps[0] == Lost(BLOCK, 8000 - BLOCK, 0)


def test_a_discontinuity_of_unknown_length_is_told() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(0)])
    steps = list(sequencer.push(header(1, BLOCK, Flag.DISCONTINUITY), BLOCK, 1))
    assert steps[0] == Lost(BLOCK, 0, 0)


def test_a_lost_message_without_samples_costs_no_samples() -> None:
    sequencer: Sequencer[int] = Sequencer(0)
    run(sequencer, [message(0)])
    assert first(sequencer.push(header(2, BLOCK), BLOCK, 1)) == Lost(BLOCK, 0, 1)


def test_a_message_without_samples_has_no_position() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    steps = run(
        sequencer, [message(0), (header(1, 0, Flag.PAUSE), 0, 1), (header(2, BLOCK), BLOCK, 2)]
    )
    assert delivered(steps) == [0, 1, 2]
    assert len(steps) == 3


def test_a_start_out_of_sequence_is_a_restart_and_what_waited_comes_first() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    steps = run(sequencer, [message(50), message(52), (header(0, 0, Flag.START), BLOCK, 0)])
    assert [type(step) for step in steps] == [Deliver, Lost, Deliver, Restart, Deliver]
    assert steps[3] == Restart("start")
    assert sequencer.position == BLOCK


def test_a_start_in_sequence_is_no_restart_unless_the_index_goes_back() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    steps = run(sequencer, [message(0), message(1, flags=Flag.START)])
    assert not of(Restart, steps)
    steps = list(sequencer.push(header(2, 0, Flag.START), 0, 2))
    assert steps[0] == Restart("first_sample")


def test_a_second_copy_of_the_start_is_a_duplicate() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    start = message(0, flags=Flag.START)
    steps = run(sequencer, [start, start, message(1), start])
    assert len(of(Duplicate, steps)) == 2
    assert not of(Restart, steps)


def test_a_copy_of_a_start_in_the_middle_is_a_duplicate() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    start = message(1, flags=Flag.START)
    steps = run(sequencer, [message(0), start, start, message(2)])
    assert delivered(steps) == [0, 1, 2]
    assert of(Duplicate, steps)
    assert not of(Restart, steps)


def test_a_start_with_another_time_is_a_restart_however_near() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    first = (header(0, 0, Flag.START, captured_at_ns=1), 0, 0)
    second = (header(0, 0, Flag.START, captured_at_ns=2), 0, 1)
    assert Restart("start") in run(sequencer, [first, second])


def test_a_copy_of_a_timed_start_is_a_duplicate_further_away() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    start = (header(0, 0, Flag.START, captured_at_ns=1), BLOCK, 0)
    steps = run(sequencer, [start, *(message(n) for n in range(1, 50)), start, message(50)])
    assert len(of(Duplicate, steps)) == 1
    assert not of(Restart, steps)
    assert delivered(steps) == list(range(51))


def test_a_publisher_that_begins_again_without_saying_so_far_back() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(n) for n in range(1000)])
    steps = run(sequencer, [message(n) for n in range(20)])
    assert steps[0] == Restart("sequence")
    assert delivered(steps) == list(range(20))


def test_a_publisher_that_begins_again_without_saying_so_near() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(n) for n in range(30)])
    steps = run(sequencer, [message(n) for n in range(25)])
    assert of(Restart, steps) == [Restart("sequence")]
    assert delivered(steps) == list(range(WINDOW + RESTART_RUN, 25))


def test_old_messages_between_good_ones_are_no_restart() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(n) for n in range(60)])
    steps = run(
        sequencer, [message(n) for pair in zip(range(60, 90), range(30), strict=True) for n in pair]
    )
    assert delivered(steps) == list(range(60, 90))
    assert not of(Restart, steps)


@pytest.mark.parametrize("stray", [10_000_000, 2**31 + 7, 2**32 - 5000])
def test_one_stray_message_moves_nothing(stray: int) -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    steps = run(sequencer, [*(message(n) for n in range(200)), (header(stray, 5), BLOCK, -1)])
    assert sequencer.waiting
    steps += run(sequencer, [message(n) for n in range(200, 300)])
    assert delivered(steps) == list(range(300))
    assert [step.header.sequence for step in of(Late, steps)] == [stray]
    assert not sequencer.waiting


def test_a_long_outage_is_believed_on_the_second_message() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(0)])
    far = MAX_DROPOUT + 10
    steps = run(sequencer, [message(far), message(far + 1), message(far + 2)])
    assert steps[0] == Lost(BLOCK, (far - 1) * BLOCK, far - 1)
    assert delivered(steps) == [far, far + 1, far + 2]


def test_a_new_numbering_ahead_whose_index_goes_back_is_a_restart() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(n) for n in range(10)])
    steps = run(sequencer, [message(n, base=10**9) for n in range(5)])
    assert Restart("first_sample") in steps
    assert delivered(steps) == list(range(5))


def test_an_index_that_goes_back_in_sequence_is_a_restart() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(0), message(1)])
    assert first(sequencer.push(header(2, BLOCK), BLOCK, 2)) == Restart("first_sample")


@pytest.mark.parametrize("change", [{"rate": 16000}, {"channels": 2}])
def test_another_format_is_a_restart(change: dict[str, int]) -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(0)])
    steps = list(sequencer.push(header(1, BLOCK, **change), BLOCK, 1))
    assert steps[0] == Restart("format")


def test_flush_releases_what_waits_and_tells_what_is_missing() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    run(sequencer, [message(n) for n in (0, 2, 3, 6)])
    steps = list(sequencer.flush())
    assert delivered(steps) == [2, 3, 6]
    assert of(Lost, steps) == [Lost(BLOCK, BLOCK, 1), Lost(4 * BLOCK, 2 * BLOCK, 2)]
    assert not sequencer.waiting
    assert delivered(list(sequencer.push(*message(7)))) == [7]


def test_flush_of_nothing_is_nothing() -> None:
    sequencer: Sequencer[int] = Sequencer(WINDOW)
    assert list(sequencer.flush()) == []


@pytest.mark.parametrize("window", [-1, MAX_MISORDER])
def test_windows_that_cannot_work_are_refused(window: int) -> None:
    with pytest.raises(ValueError, match="window"):
        Sequencer(window)


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[int, int, list[int], set[int]]:
    """A numbering's base, a window, an order of arrival within the window, and the lost."""
    window = draw(st.integers(0, 12))
    count = draw(st.integers(1, 60))
    base = draw(st.sampled_from([0, 7, SEQUENCE_MODULUS - 20, SEQUENCE_MODULUS - 1]))
    lost = draw(st.sets(st.integers(1, count), max_size=count // 2)) - {count}
    # A message k sorted by k + delay, delay <= window, is overtaken by at most `window` numbers.
    delays = draw(st.lists(st.integers(0, window), min_size=count + 1, max_size=count + 1))
    order = sorted(set(range(1, count + 1)) - lost, key=lambda k: (k + delays[k], -k))
    copies = draw(st.lists(st.integers(0, max(len(order) - 1, 0)), max_size=5)) if order else []
    for at in copies:
        order.insert(min(len(order), at + draw(st.integers(0, 3))), order[at])
    return base, window, [0, *order], lost


@given(arrivals())
def test_every_order_within_the_window_is_put_right(
    case: tuple[int, int, list[int], set[int]],
) -> None:
    base, window, order, lost = case
    sequencer: Sequencer[int] = Sequencer(window)
    steps = run(sequencer, [message(n, base) for n in order]) + list(sequencer.flush())
    assert not of(Restart, steps)
    assert not of(Silence, steps)
    assert delivered(steps) == sorted(set(order))
    assert len(of(Duplicate, steps)) == len(order) - len(set(order))
    assert not of(Late, steps)
    within = {n for n in lost if n < max(order)}
    assert sum(step.messages for step in of(Lost, steps)) == len(within)
    assert sum(step.samples for step in of(Lost, steps)) == len(within) * BLOCK


@st.composite
def wild(draw: st.DrawFn) -> tuple[int, list[tuple[Header, int, int]]]:
    """Any messages at all, near each other often enough to meet every rule."""
    window = draw(st.integers(0, 6))
    sequence = st.one_of(
        st.integers(0, 40),
        st.integers(SEQUENCE_MODULUS - 20, SEQUENCE_MODULUS - 1),
        st.integers(0, SEQUENCE_MODULUS - 1),
    )
    messages = draw(
        st.lists(
            st.tuples(
                sequence,
                st.integers(0, 40),
                st.sampled_from([0, 0, 0, 1, 2, 4, 8, 16, 5]),
                st.sampled_from([8000, 8000, 8000, 16000]),
                st.sampled_from([BLOCK, BLOCK, 0]),
                st.sampled_from([0, 0, 1]),
            ),
            max_size=120,
        )
    )
    return window, [
        (header(s, f * BLOCK, flags, rate=rate, captured_at_ns=at), samples, k)
        for k, (s, f, flags, rate, samples, at) in enumerate(messages)
    ]


@given(wild())
def test_whatever_comes_positions_ascend_and_every_message_has_one_fate(
    case: tuple[int, list[tuple[Header, int, int]]],
) -> None:
    window, messages = case
    sequencer: Sequencer[int] = Sequencer(window)
    steps: list[Any] = []
    for one in messages:
        steps += sequencer.push(*one)
        held = len(sequencer._pending) + (sequencer._suspect is not None)
        assert held <= window + 1
        assert sequencer.waiting == bool(held)
    steps += sequencer.flush()
    fates = len(of(Deliver, steps)) + len(of(Duplicate, steps)) + len(of(Late, steps))
    assert fates == len(messages)
    assert len(set(delivered(steps))) == len(delivered(steps))
    position: int | None = None
    for step in steps:
        if isinstance(step, Restart):
            position = None
        elif isinstance(step, Lost | Silence):
            assert position is None or step.first_sample == position
            position = step.first_sample + step.samples
        elif isinstance(step, Deliver) and step.samples:
            assert position is None or step.header.first_sample == position
            position = step.header.first_sample + step.samples
    if position is not None:
        assert sequencer.position == position


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=60))
def test_without_reordering_each_jump_is_told_exactly(moves: list[tuple[int, bool]]) -> None:
    sequencer: Sequencer[int] = Sequencer(0)
    sequence, position = SEQUENCE_MODULUS - 10, 0
    sequencer.push(header(sequence, position), BLOCK, 0)
    for jump, by_loss in moves:
        sequence += 1 + (jump if by_loss else 0)
        position += BLOCK
        steps = list(sequencer.push(header(sequence, position + jump * BLOCK), BLOCK, 0))
        expected: list[Any] = []
        if jump and by_loss:
            expected = [Lost(position, jump * BLOCK, jump)]
        elif jump:
            expected = [Silence(position, jump * BLOCK)]
        assert steps[:-1] == expected
        position += jump * BLOCK
        assert steps[-1] == Deliver(header(sequence, position), BLOCK, 0)
