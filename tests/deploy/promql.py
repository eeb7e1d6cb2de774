"""As much of PromQL as it takes to find what an expression asks of its metrics."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    | (?P<range>\[[^\]]*\])
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?:ms|[smhdwy])?)
    | (?P<name>[a-zA-Z_:$][a-zA-Z0-9_:$]*)
    | (?P<operator>=~|!~|==|!=|<=|>=|[-+*/%^<>={}(),@])
    )""",
    re.VERBOSE,
)
_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "offset", "bool", "atan2", "inf", "nan", "start", "end"}
_AGGREGATIONS = {
    *("sum", "min", "max", "avg", "group", "count", "stddev", "stdvar", "topk", "bottomk"),
    *("quantile", "count_values"),
}


class Use(NamedTuple):
    """One metric in an expression.

    Attributes
    ----------
    metric
        As written, so with ``_total`` or ``_bucket``.
    labels
        Labels that its matchers, or the lists around it, ask for.
    functions
        Functions and aggregations around it, innermost first.
    ranged
        Whether a range of time is asked for.
    """

    metric: str
    labels: frozenset[str]
    functions: tuple[str, ...]
    ranged: bool


class PromqlError(Exception):
    """What stands there is no expression that this parser understands."""


def uses(expression: str) -> list[Use]:
    """Every metric of an expression, in the order of their appearance."""
    return _Parser(_tokens(expression)).all()


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = expression.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match or match.end() == at:
            raise PromqlError(f"at {text[at : at + 20]!r} of {text!r}")
        at = match.end()
        assert match.lastgroup is not None
        found.append((match.lastgroup, match[match.lastgroup]))
    return found


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._uses: list[Use] = []
        # Of each open parenthesis: the function before it, and the metrics before it.
        self._open: list[tuple[str, int, set[str]]] = []

    def all(self) -> list[Use]:
        pending: str = ""
        listed: set[str] = set()
        # Labels of "on": asked of both sides, here of every metric in the expression.
        matched: set[str] = set()
        closed: tuple[int, int] | None = None
        while self._at < len(self._tokens):
            kind, text = self._take()
            if kind == "name" and text in _LISTS:
                names = self._list()
                # Before the parenthesis or behind it: "sum by (a) (x)" and "sum(x) by (a)".
                if text == "on":
                    matched |= names
                elif text == "by":
                    if pending:
                        listed |= names
                    elif closed is not None:
                        self._label(closed, names)
            elif kind == "name" and (text in _AGGREGATIONS or self._peek() == "("):
                pending, listed = text, set()
                continue
            elif kind == "name" and text not in _WORDS:
                self._metric(text)
            elif text == "(":
                self._open.append((pending, len(self._uses), listed))
                pending, listed = "", set()
            elif text == ")":
                if not self._open:
                    raise PromqlError("a parenthesis too many")
                function, first, names = self._open.pop()
                closed = first, len(self._uses)
                self._label(closed, names)
                if function:
                    for index in range(first, len(self._uses)):
                        use = self._uses[index]
                        self._uses[index] = use._replace(functions=(*use.functions, function))
        if self._open:
            raise PromqlError("a parenthesis is not closed")
        self._label((0, len(self._uses)), matched)
        return self._uses

    def _take(self) -> tuple[str, str]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _list(self) -> set[str]:
        if self._take()[1] != "(":
            raise PromqlError("a list of labels in parentheses was expected")
        names = set()
        while (token := self._take())[1] != ")":
            if token[0] == "name":
                names.add(token[1])
        return names

    def _label(self, span: tuple[int, int], names: set[str]) -> None:
        for index in range(*span):
            use = self._uses[index]
            self._uses[index] = use._replace(labels=use.labels | names)

    def _metric(self, name: str) -> None:
        labels = set()
        if self._peek() == "{":
            self._take()
            while (token := self._take())[1] != "}":
                if token[0] == "name":
                    labels.add(token[1])
        ranged = self._at < len(self._tokens) and self._tokens[self._at][0] == "range"
        if ranged:
            self._take()
        self._uses.append(Use(name, frozenset(labels), (), ranged))
