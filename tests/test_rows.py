from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serd.rows import NO_LIMIT, Close, Open, RowPool, StreamInfo, Timeline, Told
from serd.rows import Gap as RowGap
from serd.types import BoolArray, Role

DAY = 24 * 3600

_INFO = StreamInfo("call", "tap", 0, 1, 8000, "s16le", Role.UNKNOWN)


@given(st.integers(0, 2**45), st.integers(0, 2**45), st.integers(0, 30 * DAY * 8000))
def test_native_positions_are_exact_at_any_size(ring: int, source: int, offset: int) -> None:
    timeline = Timeline(ring, source, 8000, 8000)
    assert timeline.source_index(ring + offset) == source + offset
    assert timeline.ring_index(source + offset) == ring + offset


@given(st.sampled_from([11_025, 22_050, 24_000, 44_100, 48_000]), st.integers(0, 30 * DAY))
def test_resampled_positions_do_not_drift(rate_hz: int, seconds: int) -> None:
    timeline = Timeline(5, 7, 16_000, rate_hz)
    assert timeline.source_index(5 + seconds * 16_000) == 7 + seconds * rate_hz
    assert timeline.ring_index(7 + seconds * rate_hz) == 5 + seconds * 16_000


@given(st.sampled_from([9_999, 11_025, 44_100, 48_000]), st.integers(0, 10**12))
def test_a_resampled_position_is_the_nearest_sample(rate_hz: int, offset: int) -> None:
    index = Timeline(0, 0, 16_000, rate_hz).source_index(offset)
    assert abs(index * 16_000 - offset * rate_hz) * 2 <= 16_000


def _pool() -> RowPool:
    return RowPool(8000, 3, 1000)


def test_capacity_is_whole_frames() -> None:
    assert _pool().capacity == 1024


def test_controls_come_back_in_order_and_move_the_limit() -> None:
    pool = _pool()
    row = pool.acquire()
    assert row == 0
    opened = Open(0, _INFO, Timeline(0, 0, 8000, 8000))
    told = Told(40, RowGap("late", 0, 10, 1))
    pool.control(row, opened)
    pool.control(row, told)
    pool.control(row, Close(90, 90, "end"))
    assert pool.limit[row] == 0
    assert pool.next_control(row) is opened
    assert pool.limit[row] == 40
    assert pool.next_control(row) is told
    assert pool.limit[row] == 90
    assert pool.next_control(row) == Close(90, 90, "end")
    assert pool.limit[row] == NO_LIMIT
    assert pool.next_control(row) is None


def test_rows_are_lent_and_given_back() -> None:
    pool = _pool()
    rows = [pool.acquire() for _ in range(4)]
    assert rows == [0, 1, 2, None]
    pool.ring.write(1, np.ones(100, np.int16))
    pool.active[1] = True
    pool.release(1)
    assert not pool.active[1]
    assert pool.ring.free(1) == pool.capacity
    assert pool.acquire() == 1


def test_arrival_and_capture_times_follow_the_samples() -> None:
    pool = _pool()
    pool.mark_arrival(0, 0, 300, 11)
    pool.mark_arrival(0, 300, 600, 22)
    assert pool.arrived_ns(0, 256) == 11
    assert pool.arrived_ns(0, 512) == 22
    pool.anchor(0, 8000, 10**18)
    assert pool.captured_ns(0, 8000 + 4000) == 10**18 + 500_000_000
    assert pool.captured_ns(0, 0) == 10**18 - 10**9


@given(st.integers(1, 700), st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_blocks_for_many_rows_are_the_same_as_one_by_one(length: int, rows: list[int]) -> None:
    single, bulk = RowPool(8000, 3, 5000), RowPool(8000, 3, 5000)
    at = np.array([100, 4900, 5000])
    for pool in (single, bulk):
        pool.ring.written[:] = pool.ring.released[:] = at
    starts = []
    for row in rows:
        starts.append(int(single.ring.written[row]))
        single.ring.write(row, np.full(length, row + 1, np.int16))
        single.mark_arrival(row, starts[-1], starts[-1] + length, 77)
    blocks = np.array(rows, np.int16)[:, np.newaxis] + np.ones((1, length), np.int16)
    bulk.put(np.array(rows), np.array(starts), blocks, 77)
    assert np.array_equal(bulk.ring.written, at), "nobody's yet"
    bulk.publish(np.arange(3), single.ring.written)
    assert np.array_equal(bulk.ring.samples, single.ring.samples)
    for row in rows:
        for end in range(int(at[row]) + 1, int(single.ring.written[row]) + 1):
            assert bulk.arrived_ns(row, end) == single.arrived_ns(row, end) == 77


@given(
    st.integers(0, 2**45), st.sampled_from([0, 10**18, 2**63 - 1]), st.sampled_from([8000, 16_000])
)
def test_captured_times_are_exact_at_any_size(ring: int, unix_ns: int, rate_hz: int) -> None:
    single, bulk = RowPool(rate_hz, 2, 1000), RowPool(rate_hz, 2, 1000)
    single.anchor(1, ring, unix_ns)
    bulk.anchor_all(np.array([1]), np.array([ring]), np.array([unix_ns]))
    for offset in (0, 1, 8001, -7):
        expected = unix_ns + offset * 10**9 // rate_hz
        assert single.captured_ns(1, ring + offset) == expected
        assert bulk.captured_ns(1, ring + offset) == expected


def test_room_is_told_once_to_who_asked() -> None:
    pool = _pool()
    told: list[int] = []
    pool.on_room = lambda: told.append(1)
    pool.made_room()
    pool.made_room()
    assert told == [1]


def test_who_asks_for_room_while_it_is_being_told_is_not_forgotten() -> None:
    told: list[int] = []

    class Asked(RowPool):
        """A pool whose writer asks at the moment in which the reader has looked."""

        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name == "on_room" and found is None:
                self.on_room = lambda: told.append(1)
            return found

    pool = Asked(8000, 3, 1000)
    pool.made_room()
    assert not told
    pool.made_room()
    assert told == [1]


class Watched(np.ndarray[Any, np.dtype[np.bool_]]):
    """An array that others write to: it must not be counted and then gone through."""

    shared = False

    def nonzero(self) -> tuple[np.ndarray[Any, np.dtype[np.intp]], ...]:
        assert not self.shared, "nonzero of an array that another thread writes to"
        return super().nonzero()

    def __getitem__(self, key: Any) -> Any:
        masks = isinstance(key, np.ndarray) and key.dtype == np.bool_
        assert not masks, "a mask as an index of an array that another thread writes to"
        return super().__getitem__(key)


def _watch(values: BoolArray) -> Watched:
    watched = values.view(Watched)
    watched.shared = True
    return watched


def test_rows_in_use_are_looked_for_where_no_other_thread_writes() -> None:
    pool = _pool()
    pool.active, pool.patient = _watch(pool.active), _watch(pool.patient)
    assert pool.in_use().tolist() == []
    for row in (2, 0):
        pool.control(row, Open(0, _INFO, Timeline(0, 0, 8000, 8000)))
    assert pool.in_use().tolist() == [0, 2]
    pool.patient[1] = True
    assert not pool.any_patient()
    pool.patient[2] = True
    assert pool.any_patient()
    pool.release(2)
    assert not pool.any_patient()
