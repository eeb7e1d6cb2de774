"""The log events that a source tree names, found by reading it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


class Logged(NamedTuple):
    """One call of the log: where, at which levels, and the event's name (None: no literal)."""

    where: str
    levels: frozenset[str]
    name: str | None


def logged(folder: Path) -> Iterator[Logged]:
    """Every call of a module's ``_log``, also by way of a variable that holds its method."""
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        aliases = {
            target.id: levels
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and (levels := _levels(node.value))
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            levels = _levels(node.func)
            if not levels and isinstance(node.func, ast.Name):
                levels = aliases.get(node.func.id, frozenset())
            if levels:
                where = f"{path.relative_to(folder.parent)}:{node.lineno}"
                for name in _names(node.args[0]) if node.args else [None]:
                    yield Logged(where, levels, name)


def _levels(node: ast.expr) -> frozenset[str]:
    if isinstance(node, ast.IfExp):
        return _levels(node.body) | _levels(node.orelse)
    if (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "_log"
        and node.attr in LEVELS
    ):
        return frozenset({"error" if node.attr == "exception" else node.attr})
    return frozenset()


def _names(node: ast.expr) -> list[str | None]:
    if isinstance(node, ast.IfExp):
        return [*_names(node.body), *_names(node.orelse)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    return [None]
