"""The rest between two rounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.runtime.rhythm import rest_s


@pytest.mark.parametrize(
    ("took_ms", "rest_ms"),
    [
        (0.0, 0.0),
        (0.1, 1.5),
        (0.5, 7.5),
        # From here on the limit holds, counted from the beginning of the round.
        (2.0, 14.0),
        (16.0, 0.0),
        (300.0, 0.0),
    ],
)
def test_the_rest_is_in_proportion_up_to_the_limit(took_ms: float, rest_ms: float) -> None:
    assert rest_s(took_ms / 1000, 0.016) == pytest.approx(rest_ms / 1000)


@given(took_s=st.floats(0, 10), longest_s=st.floats(0, 0.1))
def test_no_round_begins_later_than_the_limit_for_resting(took_s: float, longest_s: float) -> None:
    rest = rest_s(took_s, longest_s)
    assert rest >= 0
    assert rest == 0 or took_s + rest <= longest_s * (1 + 1e-9)
