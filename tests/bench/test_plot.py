from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serd.bench.plot import Axis, Panel, Series, draw, linear_axis, log_axis

finite = st.floats(-1e6, 1e6, allow_nan=False)
positive = st.floats(1e-3, 1e6)


def check(axis: Axis, values: list[float]) -> None:
    assert 2 <= len(axis.ticks) <= 12
    assert list(axis.ticks) == sorted(axis.ticks)
    for value in values:
        assert -0.001 <= axis.place(value) <= 1.001
    for tick in axis.ticks:
        assert -0.001 <= axis.place(tick) <= 1.001


@given(values=st.lists(finite, min_size=1))
@example([5e-324])
def test_a_linear_axis_holds_all_values_and_zero(values: list[float]) -> None:
    check(linear_axis(values), [*values, 0.0])


@given(values=st.lists(positive, min_size=1))
def test_a_logarithmic_axis_holds_all_values(values: list[float]) -> None:
    check(log_axis(values), values)


def test_ticks_are_round() -> None:
    assert linear_axis([0.3, 1.7]).ticks == pytest.approx((0, 0.5, 1.0, 1.5, 2.0))
    assert log_axis([1, 2000]).ticks == pytest.approx((1, 10, 100, 1000))
    assert log_axis([5, 90]).ticks == pytest.approx((5, 10, 20, 50, 100))


def test_the_drawing_is_xml_with_every_series_and_what_is_missing_left_out() -> None:
    panels = [
        Panel("a < b", "x", [Series("one", [(1, 1.0), (10, None), (100, 3.0)])], log_x=True),
        Panel("two", "x", [Series("p", [(0, 1.0)]), Series("q", [(0, 2.0)])], bound=9.0),
        Panel("none", "x", [Series("empty", [(1, None)])]),
    ]
    root = ElementTree.fromstring(draw("title & more", panels, "machine"))
    space = {"s": "http://www.w3.org/2000/svg"}
    lines = root.findall(".//s:polyline", space)
    assert [len(line.attrib["points"].split()) for line in lines] == [2, 1, 1]
    text = [element.text for element in root.findall(".//s:text", space)]
    assert {"title & more", "a < b", "p", "q", "nothing measured", "machine"} <= set(text)
    assert len(root.findall(".//s:path[@class='bound']", space)) == 1
    # Nothing is loaded from elsewhere.
    assert "href" not in draw("t", panels, "m")
