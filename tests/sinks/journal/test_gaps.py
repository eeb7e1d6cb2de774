"""What the journal is to be told that it will not have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serd.sinks.journal.gaps import Gaps


def test_ranges_that_follow_each_other_are_one() -> None:
    gaps = Gaps()
    gaps.add(5, 7)
    gaps.add(8, 8)
    gaps.add(10, 12)
    assert gaps.ranges == [(5, 8), (10, 12)]
    assert gaps.newest == 12


def test_there_may_be_none() -> None:
    assert Gaps().ranges == []
    assert Gaps().newest == 0


def test_what_is_given_up_during_a_write_is_written_next_time() -> None:
    gaps = Gaps()
    gaps.add(1, 5)
    assert gaps.to_write() == [(1, 5)]
    gaps.add(6, 9)
    gaps.written()
    assert gaps.to_write() == [(6, 9)]
    gaps.written()
    assert gaps.ranges == []


def test_what_could_not_be_written_is_written_later() -> None:
    gaps = Gaps()
    gaps.add(1, 5)
    gaps.to_write()
    gaps.add(6, 9)
    assert gaps.to_write() == [(1, 5), (6, 9)]
    gaps.add(10, 10)
    gaps.written()
    assert gaps.ranges == [(10, 10)]


@given(st.lists(st.sampled_from(["add", "skip", "begin", "end", "fail"]), max_size=60))
def test_every_cursor_is_written_or_still_there(steps: list[str]) -> None:
    gaps, cursor = Gaps(), 1
    given_up: set[int] = set()
    written: set[int] = set()
    under_way: list[tuple[int, int]] | None = None
    for step in steps:
        if step == "add":
            gaps.add(cursor, cursor + 1)
            given_up |= {cursor, cursor + 1}
            cursor += 2
        elif step == "skip":
            cursor += 1
        elif step == "begin":
            under_way = gaps.to_write()
        elif under_way is not None:
            if step == "end":
                gaps.written()
                written |= _cursors(under_way)
            under_way = None
    assert written | _cursors(gaps.ranges) == given_up


def _cursors(ranges: list[tuple[int, int]]) -> set[int]:
    return {cursor for first, last in ranges for cursor in range(first, last + 1)}
