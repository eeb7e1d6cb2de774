from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serd.bench.search import confirm, find_most


@given(truth=st.integers(0, 60_000), first=st.integers(1, 5000), limit=st.integers(1, 50_000))
def test_the_most_that_holds_is_found_to_five_percent(truth: int, first: int, limit: int) -> None:
    tried: list[int] = []

    def holds(streams: int) -> bool:
        tried.append(streams)
        return streams <= truth

    found = find_most(holds, first, limit)
    best = min(truth, limit)
    assert found <= best
    assert best - found <= max(1, 0.05 * found)
    assert not found or found in tried
    assert len(tried) == len(set(tried)) <= 40
    assert all(1 <= streams <= limit for streams in tried)


@given(first=st.integers(0, 5000), truth=st.integers(0, 5000))
def test_confirming_goes_down_until_it_holds(first: int, truth: int) -> None:
    found = confirm(lambda streams: streams <= truth, first)
    assert found == first if first <= truth else found <= truth
    if 100 < truth < first:
        assert found >= truth * 0.94
