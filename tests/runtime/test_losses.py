"""Ranges that were lost, against sets of samples."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from serd.runtime.losses import Losses, Range, outside

_LENGTH = 60
ranges = st.lists(st.integers(0, _LENGTH), unique=True, max_size=12).map(
    lambda cuts: list(zip(sorted(cuts)[::2], sorted(cuts)[1::2], strict=False))
)
index = st.integers(0, _LENGTH)


def _samples(spans: Iterable[Range]) -> list[int]:
    return [sample for start, end in spans for sample in range(start, end)]


@given(ranges, index, index, index)
def test_a_range_is_what_was_lost_of_it_and_the_rest(
    lost: list[Range], start: int, end: int, before: int
) -> None:
    losses = Losses()
    for span in lost:
        losses.note(*span)
    within = losses.within(start, end)
    rest = list(outside(start, end, lost))
    assert _samples(within) == [s for s in range(start, end) if s in _samples(lost)]
    assert _samples(rest) == [s for s in range(start, end) if s not in _samples(lost)]
    assert list(outside(start, end, within)) == rest
    assert all(first < last for first, last in [*within, *rest])
    losses.forget(before)
    later = max(start, before)
    assert _samples(losses.within(later, end)) == [s for s in _samples(within) if s >= before]
    assert len(losses) == sum(last > before for _, last in lost)
