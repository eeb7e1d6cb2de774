"""The reader of PromQL that checks dashboards and rules."""

from __future__ import annotations

import pytest

from tests.deploy.promql import PromqlError, Use, uses


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a", [Use("a", frozenset(), (), False)]),
        ('a{x="} b (c", y=~\'d\'} > 0.5', [Use("a", frozenset("xy"), (), False)]),
        ("rate(a_total[5m])", [Use("a_total", frozenset(), ("rate",), True)]),
        (
            "sum by (x, y) (rate(a_total{z!=\"1\"}[$__rate_interval]))",
            [Use("a_total", frozenset("xyz"), ("rate", "sum"), True)],
        ),
        ("sum(a) by (x)", [Use("a", frozenset("x"), ("sum",), False)]),
        ("sum without (x) (a)", [Use("a", frozenset(), ("sum",), False)]),
        (
            "a / on (x) b",
            [Use("a", frozenset("x"), (), False), Use("b", frozenset("x"), (), False)],
        ),
        (
            "histogram_quantile(0.9, sum by (le) (rate(a_bucket[1h]))) > 1e-3 and b offset 5m",
            [
                Use("a_bucket", frozenset({"le"}), ("rate", "sum", "histogram_quantile"), True),
                Use("b", frozenset(), (), False),
            ],
        ),
        ("max(a) - min(b) * 2", [
            Use("a", frozenset(), ("max",), False), Use("b", frozenset(), ("min",), False)
        ]),
    ],
)  # fmt: skip
def test_what_an_expression_asks_for(expression: str, expected: list[Use]) -> None:
    assert uses(expression) == expected


@pytest.mark.parametrize("expression", ["rate(a", "a)", "a ; b", "sum by a"])
def test_nonsense(expression: str) -> None:
    with pytest.raises((PromqlError, IndexError)):
        uses(expression)
