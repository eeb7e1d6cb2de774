"""The policy of overload as a machine: a load and a capacity in, the streams that are kept out."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serd.runtime.overload import Governor

BOUND_MS = 150


class Load:
    """Streams that give a second of audio a second to a server that takes `capacity` of them."""

    def __init__(
        self, streams: int, capacity: float, step_s: float = 0.02, noise_s: float = 0.0
    ) -> None:
        self.governor = Governor(BOUND_MS)
        self.capacity = capacity
        self.kept: set[int] = set()
        self.shed: set[int] = set()
        self.lag_s = 0.0
        self.peak_s = 0.0
        self.now_s = 0.0
        self._step_s = step_s
        self._noise_s = noise_s
        self._random = random.Random(1)
        self._next = 0
        self.open(streams)

    def open(self, streams: int) -> None:
        for _ in range(streams):
            kept = self.governor.opened(self._next)
            (self.kept if kept else self.shed).add(self._next)
            self._next += 1
        self._check()

    def close(self, keys: set[int]) -> None:
        for key in keys:
            self.governor.closed(key)
        self.kept -= keys
        self.shed -= keys
        self._check()

    def run(self, seconds: float, watch: Callable[[], None] = lambda: None) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += self._step_s
            load = len(self.kept) / self.capacity
            if self.lag_s or load > 1:
                self.lag_s += self._step_s * (1 - 1 / load) if load else -self._step_s
                self.lag_s = max(0.0, self.lag_s)
            self.peak_s = max(self.peak_s, self.lag_s)
            seen_s = self.lag_s + self._random.random() * self._noise_s
            moves = self.governor.observe(int(self.now_s * 1e9), int(seen_s * 1e9))
            if moves is not None:
                assert moves.shed == sorted(self.kept, reverse=True)[: len(moves.shed)]
                assert moves.back == sorted(self.shed)[: len(moves.back)]
                assert not (moves.shed and moves.back)
                self.kept = (self.kept - set(moves.shed)) | set(moves.back)
                self.shed = (self.shed | set(moves.shed)) - set(moves.back)
                self._check()
            watch()

    def _check(self) -> None:
        assert self.governor.kept == len(self.kept)
        assert self.governor.shed == len(self.shed)
        # The oldest are kept: no stream that is shed is older than one that is not.
        assert max(self.kept, default=-1) < min(self.shed, default=self._next)


@given(
    streams=st.integers(1, 2000),
    load=st.floats(0.05, 0.95),
    step_s=st.sampled_from([0.005, 0.02, 0.04]),
    noise_s=st.floats(0, 0.04),
)
@settings(max_examples=30, deadline=None)
def test_below_the_capacity_nobody_is_shed(
    streams: int, load: float, step_s: float, noise_s: float
) -> None:
    bench = Load(streams, streams / load, step_s, noise_s)
    bench.run(10)
    assert bench.governor.cuts == 0
    assert not bench.shed


@given(
    capacity=st.integers(20, 2000),
    factor=st.floats(1.1, 4.0),
    step_s=st.sampled_from([0.005, 0.02, 0.04]),
    noise_s=st.floats(0, 0.03),
)
@settings(max_examples=30, deadline=None)
def test_above_the_capacity_the_lag_stays_bounded_and_most_of_the_capacity_is_used(
    capacity: int, factor: float, step_s: float, noise_s: float
) -> None:
    bench = Load(round(capacity * factor), capacity, step_s, noise_s)
    bench.run(3)
    # It takes as long as it takes to notice, and at four times the capacity more than one cut.
    assert bench.peak_s < 0.35 + 10 * step_s
    bench.peak_s = 0.0
    used: list[float] = []
    bench.run(40, lambda: used.append(len(bench.kept) / capacity))
    assert bench.peak_s < 0.25
    assert sum(used) / len(used) > 0.6
    assert min(used) > 0.3


def test_at_twice_the_capacity_the_lag_hardly_exceeds_its_bound() -> None:
    bench = Load(2000, 1000)
    bench.run(2)
    assert bench.peak_s < 0.2
    assert 0.7 < len(bench.kept) / 1000 < 1.05
    assert bench.lag_s < BOUND_MS / 2000


@given(capacity=st.integers(20, 1000), factor=st.floats(1.3, 3.0), overload_s=st.integers(1, 60))
@settings(max_examples=20, deadline=None)
def test_when_the_load_goes_all_are_back_within_seconds(
    capacity: int, factor: float, overload_s: int
) -> None:
    bench = Load(round(capacity * factor), capacity)
    bench.run(overload_s)
    keys = sorted(bench.kept | bench.shed)
    bench.close(set(random.Random(2).sample(keys, len(keys) - capacity * 6 // 10)))
    bench.run(4)
    assert not bench.shed
    bench.run(60)
    assert not bench.shed
    # And what is remembered of an overload long past holds nobody back.
    bench.capacity *= 10
    bench.open(3 * capacity)
    assert not bench.shed


def test_when_the_machine_is_free_again_all_are_back() -> None:
    bench = Load(2000, 1000)
    bench.run(10)
    assert bench.shed
    bench.capacity = 3000
    bench.run(25)
    assert not bench.shed


def test_failed_attempts_become_rarer() -> None:
    bench = Load(1500, 1000)
    bench.run(30)
    first = bench.governor.cuts
    bench.run(60)
    assert bench.governor.cuts - first < 2 * first


@given(stall_s=st.floats(0.05, 2.0), load=st.floats(0.05, 0.7), at_s=st.floats(0, 0.2))
@settings(max_examples=50, deadline=None)
def test_a_process_that_stood_still_sheds_nobody(stall_s: float, load: float, at_s: float) -> None:
    """Its backlog is worked off faster than shedding would do it."""
    bench = Load(100, 100 / load)
    bench.run(2 + at_s)
    bench.now_s += stall_s
    bench.lag_s = stall_s
    bench.run(10)
    assert bench.governor.cuts == 0


def test_a_stream_that_opens_while_others_are_shed_begins_shed() -> None:
    bench = Load(200, 100)
    bench.run(1)
    shed = len(bench.shed)
    bench.open(10)
    assert len(bench.shed) == shed + 10
    # As many of the oldest come back as streams end.
    bench.close(set(sorted(bench.kept)[:5]))
    kept = len(bench.kept)
    bench.run(1)
    assert len(bench.kept) >= kept + 5


def test_one_stream_is_always_kept() -> None:
    bench = Load(3, 0.001)
    bench.run(5)
    assert bench.kept == {0}
    bench.close({0})
    # Once the lag that it left behind is gone.
    bench.run(bench.lag_s + 0.2)
    assert bench.kept == {1}


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_any_order_of_openings_and_endings_is_kept_track_of(data: st.DataObject) -> None:
    bench = Load(data.draw(st.integers(0, 50)), data.draw(st.floats(1, 50)))
    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(["open", "close", "run", "capacity"])):
            case "open":
                bench.open(data.draw(st.integers(1, 30)))
            case "close":
                keys = sorted(bench.kept | bench.shed)
                bench.close(set(data.draw(st.lists(st.sampled_from(keys)))) if keys else set())
            case "capacity":
                bench.capacity = data.draw(st.floats(1, 100))
            case _:
                bench.run(data.draw(st.floats(0.1, 3)))


def test_without_streams_there_is_nothing_to_do() -> None:
    governor = Governor(BOUND_MS)
    assert not governor.governs
    for tenth in range(20):
        assert governor.observe(tenth * 100_000_000, 10**9) is None
    assert governor.opened(0)


@pytest.mark.parametrize("bound_ms", [60, 150, 1000])
def test_the_bound_is_the_one_asked_for(bound_ms: int) -> None:
    governor = Governor(bound_ms)
    for key in range(10):
        governor.opened(key)
    # Load and capacity are such that the lag grows by a quarter of a second a second.
    cuts = [
        now_ms / 4
        for now_ms in range(0, 8 * bound_ms, 10)
        if governor.observe(now_ms * 1_000_000, now_ms * 250_000) is not None
    ]
    assert bound_ms / 3 < cuts[0] < bound_ms + 50


def test_a_crowd_that_comes_at_once_waits_outside_and_is_let_in() -> None:
    bench = Load(100, 150.0)
    bench.run(1)
    # A lag above the bound, too short for a cut.
    bench.governor.observe(int(bench.now_s * 1e9) + 1, round(BOUND_MS * 1.1e6))
    bench.open(40)
    assert len(bench.kept) == 100
    assert bench.governor.cuts == 0
    bench.run(5)
    assert len(bench.kept) == 140


def test_streams_open_until_no_more_are_expected_to_fit() -> None:
    governor = Governor(BOUND_MS)
    kept = []
    for key in range(200):
        if key % 5 == 0:
            governor.expect(100, 100)
        kept.append(governor.opened(key))
    # The nearer it is the fewer are let in before the next forecast.
    assert 100 <= sum(kept) <= 105
    assert kept == sorted(kept, reverse=True)
    assert governor.cuts == 0


def test_of_a_rush_half_of_what_fits_is_let_in_before_the_next_forecast() -> None:
    governor = Governor(BOUND_MS)
    governor.expect(100, 100)
    assert sum(governor.opened(key) for key in range(500)) == 53


def calm(governor: Governor, seconds: float, at_s: float) -> list[int]:
    """Who comes back in a time without a lag."""
    back: list[int] = []
    for step in range(round(seconds / 0.02)):
        moves = governor.observe(round((at_s + step * 0.02) * 1e9), 0)
        if moves is not None:
            assert not moves.shed
            back += moves.back
    return back


def crowd(inside: int, outside: int) -> Governor:
    """So many streams are analysed, which is as many as fit, and so many begin shed."""
    governor = Governor(BOUND_MS)
    for key in range(inside):
        governor.opened(key)
    governor.expect(inside / 1.05, inside)
    for key in range(inside, inside + outside):
        assert not governor.opened(key)
    return governor


def test_streams_come_back_as_more_fit_and_not_all_at_once() -> None:
    governor = crowd(100, 200)
    assert calm(governor, 2, 1) == []
    governor.expect(120, 120)
    back = calm(governor, 2, 3)
    assert back == list(range(100, 100 + len(back)))
    assert 110 <= governor.kept <= 112
    # Nothing is known any more: the lag has to tell.
    governor.expect(float("inf"), 0)
    assert 20 < len(calm(governor, 1, 5)) < 60


def test_what_fits_may_be_more_than_was_thought() -> None:
    governor = crowd(100, 200)
    governor.expect(100, 100)
    calm(governor, 120, 1)
    assert 105 < governor.kept < 130


def test_when_those_that_are_left_fit_all_come_back() -> None:
    governor = crowd(100, 200)
    governor.expect(100, 100)
    for key in range(104, 300):
        governor.closed(key)
    calm(governor, 1, 1)
    assert governor.kept == 104


def lagging(governor: Governor, lags_ms: list[int]) -> int:
    """How many are kept at these lags, one in 20 ms."""
    for step, lag_ms in enumerate(lags_ms):
        governor.observe((50 + step) * 20_000_000, lag_ms * 1_000_000)
    return governor.kept


def test_in_a_crowd_a_small_lag_bears_the_forecast_out() -> None:
    small = [BOUND_MS * 2 // 5] * 30
    for inside, outside, fits, kept in [(100, 50, 80, 80), (100, 0, 80, 100), (100, 50, 96, 100)]:
        governor = crowd(inside, outside)
        governor.expect(fits, 0)
        assert lagging(governor, small) == kept


def test_a_lag_though_all_fit_costs_what_cannot_be_borne() -> None:
    growing = list(range(0, 400, 10))
    kept = []
    for bearable in (0, 40, 80, 200):
        governor = crowd(100, 0)
        governor.expect(200, bearable)
        kept.append(lagging(governor, growing[:25]))
    assert kept == sorted(kept)
    assert kept[0] < 60
    assert 60 < kept[2] < 80
    assert 80 < kept[3] < 100
