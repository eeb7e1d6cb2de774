"""More calls than the machine can take, at once and one by one: who is let in, who is late."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.rush_bench import BOUND_MS, Machine

BOUND_S = BOUND_MS / 1000


def ready(streams: int, **machine: object) -> Machine:
    """A machine on which so many calls have been going on for a while."""
    bench = Machine(**machine)  # type: ignore[arg-type]  # its own fields
    bench.run(5, come_s=streams / 5)
    bench.run(20)
    assert not bench.ever_shed
    return bench


@given(
    base=st.integers(300, 700),
    more=st.integers(300, 1500),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15, deadline=None)
def test_a_rush_makes_nobody_late_and_costs_hardly_any_of_those_that_were_there(
    base: int, more: int, seed: int
) -> None:
    bench = ready(base, seed=seed)
    since_s = bench.now_s
    bench.run(1, come_s=more)
    bench.run(20)
    assert bench.worst_s(since_s) < BOUND_S
    assert sum(key < base for key in bench.ever_shed) <= base // 50
    if base + more > 1000:
        assert bench.governor.shed
        assert bench.governor.kept > 0.75 * 850
    bench.run(1, go_s=more)
    bench.run(6)
    assert not bench.governor.shed


def test_without_a_forecast_the_lag_tells_of_a_rush_too_late() -> None:
    worst = {}
    for forecasts in (True, False):
        bench = ready(550, forecasts=forecasts)
        since_s = bench.now_s
        bench.run(1, come_s=900)
        bench.run(20)
        worst[forecasts] = bench.worst_s(since_s)
    assert worst[True] < BOUND_S < worst[False]


def test_calls_that_come_one_by_one_are_let_in_until_no_more_fit() -> None:
    bench = ready(300)
    since_s = bench.now_s
    bench.run(60, come_s=20)
    assert bench.worst_s(since_s) < BOUND_S
    assert 650 < bench.governor.kept < 950
    # None of those that are analysed was ever given up for others.
    assert min(bench.ever_shed) >= 650


@pytest.mark.parametrize("base", [1, 100, 400])
def test_a_rush_that_fits_is_let_in(base: int) -> None:
    bench = ready(base)
    bench.run(1, come_s=700 - base)
    bench.run(5)
    assert not bench.governor.shed


def test_what_somebody_else_takes_is_given_up_and_taken_back() -> None:
    bench = ready(650)
    bench.taken = 0.9
    since_s = bench.now_s
    bench.run(10)
    assert bench.governor.shed
    assert bench.late_share(since_s) < 0.1
    bench.taken = 0.0
    bench.run(12)
    assert not bench.governor.shed


def test_a_crowd_that_ends_at_once_costs_the_others_little() -> None:
    """The last segments of all who speak are a lag that all fit in spite of."""
    bench = ready(600)
    bench.run(1, come_s=900)
    bench.run(20)
    bench.ever_shed.clear()
    bench.go(bench.open[600:])
    bench.run(3)
    assert len(bench.ever_shed) < 150
    bench.run(3)
    assert not bench.governor.shed
