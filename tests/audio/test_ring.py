"""The ring against a model of plain lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serd.audio.ring import RingRows
from serd.types import Int16Array


class RingModel(RuleBasedStateMachine):
    """Every row is a list of all samples since its reset; the ring must agree with it."""

    @initialize(rows=st.integers(1, 4), capacity=st.integers(1, 23))
    def start(self, rows: int, capacity: int) -> None:
        self.ring = RingRows(rows, capacity)
        self.capacity = capacity
        self.history: list[list[int]] = [[] for _ in range(rows)]
        self.released = [0] * rows
        self.next = 1

    def pick(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.history) - 1), "row")

    def expect(self, row: int, count: int) -> int:
        return min(count, self.capacity - len(self.history[row]) + self.released[row])

    @rule(data=st.data(), length=st.integers(1, 8), blocks=st.integers(1, 6))
    def scatter(self, data: st.DataObject, length: int, blocks: int) -> None:
        """Blocks of one length for rows of any order, some of them several times."""
        rows: list[int] = []
        starts: list[int] = []
        values: list[list[int]] = []
        ends = {row: len(history) for row, history in enumerate(self.history)}
        for _ in range(blocks):
            row = self.pick(data)
            if ends[row] + length - self.released[row] > self.capacity:
                continue
            rows.append(row)
            starts.append(ends[row])
            values.append([(self.next + k) % 30_000 + 1 for k in range(length)])
            self.next += length
            ends[row] += length
        if not rows:
            return
        samples = np.array(values, np.int16)
        before = self.ring.written.copy()
        self.ring.scatter(np.array(rows, np.int64), np.array(starts, np.int64), samples)
        assert np.array_equal(self.ring.written, before), "only the caller moves it"
        for row, block in zip(rows, values, strict=True):
            self.history[row] += block
            self.ring.written[row] = ends[row]

    @rule(data=st.data(), count=st.integers(0, 40))
    def write(self, data: st.DataObject, count: int) -> None:
        row = self.pick(data)
        values = [(self.next + k) % 30_000 + 1 for k in range(count)]
        self.next += count
        fitted = self.expect(row, count)
        assert self.ring.write(row, np.array(values, np.int16)) == fitted
        self.history[row] += values[:fitted]

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        row = self.pick(data)
        to = data.draw(st.integers(self.released[row], len(self.history[row])), "to")
        self.ring.released[row] = self.released[row] = to

    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        row = self.pick(data)
        self.ring.reset(row)
        self.history[row] = []
        self.released[row] = 0

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        row = self.pick(data)
        start = data.draw(st.integers(self.released[row], len(self.history[row])), "start")
        end = data.draw(st.integers(start, len(self.history[row])), "end")
        copy = self.ring.read(row, start, end)
        assert copy.tolist() == self.history[row][start:end]
        assert not np.shares_memory(copy, self.ring.samples)

    @rule(data=st.data(), preallocated=st.booleans())
    def gather(self, data: st.DataObject, preallocated: bool) -> None:
        length = data.draw(st.integers(1, self.capacity), "length")
        able = [
            row
            for row, history in enumerate(self.history)
            if len(history) - self.released[row] >= length
        ]
        rows = data.draw(st.lists(st.sampled_from(able), max_size=5) if able else st.just([]))
        starts = [
            data.draw(st.integers(self.released[row], len(self.history[row]) - length))
            for row in rows
        ]
        out = np.full((len(rows), length), -1, np.int16) if preallocated else None
        gathered = self.ring.gather(
            np.array(rows, np.int64), np.array(starts, np.int64), length, out
        )
        if out is not None:
            assert gathered is out
        assert gathered.shape == (len(rows), length)
        assert gathered.tolist() == [
            self.history[row][start : start + length]
            for row, start in zip(rows, starts, strict=True)
        ]

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "ring"):
            return
        for row, history in enumerate(self.history):
            assert self.ring.written[row] == len(history)
            assert self.ring.free(row) == self.expect(row, 10**9)


TestRingModel = RingModel.TestCase
TestRingModel.settings = settings(deadline=None, max_examples=60, stateful_step_count=60)


@given(st.integers(1, 50), st.lists(st.integers(0, 60), min_size=1, max_size=30))
def test_what_goes_in_comes_out_in_order_across_wraps(capacity: int, cuts: list[int]) -> None:
    ring = RingRows(1, capacity)
    sent: list[int] = []
    heard: list[int] = []
    for count in cuts:
        values = np.arange(len(sent), len(sent) + count).astype(np.int16)
        fitted = ring.write(0, values)
        sent += values[:fitted].tolist()
        written = int(ring.written[0])
        heard += ring.read(0, len(heard), written).tolist()
        ring.released[0] = written
    assert heard == sent


def test_positions_stay_exact_beyond_32_bits() -> None:
    ring = RingRows(2, 1000)
    start = 2**40 + 7
    ring.written[1] = ring.released[1] = start
    samples = np.arange(900, dtype=np.int16)
    assert ring.write(1, samples) == 900
    assert np.array_equal(ring.read(1, start + 100, start + 900), samples[100:])
    gathered = ring.gather(np.array([1, 1]), np.array([start, start + 644]), 256)
    assert np.array_equal(gathered, [samples[:256], samples[644:]])


@pytest.mark.parametrize(("start", "end"), [(4, 6), (9, 16), (12, 11)])
def test_refuses_to_read_what_is_not_held(start: int, end: int) -> None:
    ring = RingRows(1, 10)
    ring.write(0, np.arange(10, dtype=np.int16))
    ring.released[0] = 5
    ring.write(0, np.arange(5, dtype=np.int16))
    with pytest.raises(ValueError, match="outside"):
        ring.read(0, start, end)


@pytest.mark.parametrize("start", [4, 10, 14])
def test_refuses_to_gather_what_is_not_held(start: int) -> None:
    ring = RingRows(1, 10)
    ring.write(0, np.arange(10, dtype=np.int16))
    ring.released[0] = 5
    ring.write(0, np.arange(4, dtype=np.int16))
    with pytest.raises(ValueError, match="outside"):
        ring.gather(np.array([0]), np.array([start]), 5)


@pytest.mark.parametrize(("rows", "capacity"), [(0, 5), (5, 0)])
def test_refuses_a_ring_of_nothing(rows: int, capacity: int) -> None:
    with pytest.raises(ValueError, match="rows and capacity"):
        RingRows(rows, capacity)


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - not a real file
        return int(file.read().split()[1]) * 4096


def test_rows_without_a_stream_cost_no_memory() -> None:
    before = resident_bytes()
    ring = RingRows(2000, 131_072)
    samples: Int16Array = np.ones(131_072, np.int16)
    for row in range(4):
        ring.write(row, samples)
    # Half a gigabyte of rows, of which one megabyte is written; huge pages round that up.
    assert resident_bytes() - before < 64 << 20
