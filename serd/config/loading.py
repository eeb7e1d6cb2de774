"""Read a configuration, lay the overrides of the command line over it, and check all of it.

Everything that is wrong is told at once: keys that are refused are set aside, so that the checks
that involve several keys still run over the rest.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from serd.config.combinations import conflicts
from serd.config.problems import Problem, describe, key_path
from serd.config.schema import DEFAULT_SOURCE, SOURCE_MODELS, Config
from serd.errors import ConfigError, InputError


def load(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The configuration of `path` (None: the defaults) with `overrides` laid over it.

    Parameters
    ----------
    path
        A TOML file.
    overrides
        ``key=value`` pairs: dotted paths (``segment.hop_s``, ``sources.0.bind``) and TOML values;
        text needs no quotes where it cannot be mistaken for another value.

    Raises
    ------
    InputError
        The file cannot be read.
    ConfigError
        Its message lists every problem, one a line.
    """
    table: dict[str, Any] = {} if path is None else read(path)
    problems = apply_overrides(table, overrides)
    config, more = check(table)
    problems += more
    if problems:
        where = "configuration" if path is None else str(path)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError("config_invalid", f"{where}: {count}\n{lines}")
    return config


def defaults_text() -> str:
    """``defaults.toml``: every key, its default and what it means."""
    return resources.files("serd.config").joinpath("defaults.toml").read_text("utf-8")


def read(path: Path) -> dict[str, Any]:
    """The table in a TOML file.

    Raises
    ------
    InputError
        The file cannot be read.
    ConfigError
        The file is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError("config_unreadable", f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError("config_syntax", f"{path}: not valid TOML: {error}") from error


def check(table: dict[str, Any]) -> tuple[Config, list[Problem]]:
    """The configuration in `table`, with defaults in place of what is wrong, and what is wrong."""
    table = copy.deepcopy(table)
    _name_sources(table)
    try:
        config = Config.model_validate(table)
        refused: set[tuple[int | str, ...]] = set()
        problems: list[Problem] = []
    except ValidationError as error:
        errors = error.errors(include_url=False)
        refused = {_refused_path(entry) for entry in errors}
        # Several members of a union complain about one value: say it once.
        problems = list({key_path(entry["loc"]): describe(entry) for entry in errors}.values())
        config = _without(table, refused)
    blamed = {".".join(map(str, path)) for path in refused}
    problems += [
        Problem(conflict.paths[0], conflict.text)
        for conflict in conflicts(config)
        if not any(_is_under(path, blamed) for path in conflict.paths)
    ]
    return config, problems


def _name_sources(table: dict[str, Any]) -> None:
    sources = table.get("sources")
    if not isinstance(sources, list):
        return
    for index, source in enumerate(sources):
        if isinstance(source, dict) and source.get("type") in tuple(SOURCE_MODELS):
            source.setdefault("name", f"{source['type']}-{index}")


def _refused_path(entry: Any) -> tuple[int | str, ...]:
    """What has to go for the rest to be valid: a key, or the whole source it should be in."""
    path = key_path(entry["loc"])
    if path[:1] == ("sources",):
        whole = entry["type"] in {"missing", "union_tag_invalid", "union_tag_not_found"}
        return path[: 2 if whole else 3]
    return path[:2]


def _without(table: dict[str, Any], refused: Iterable[tuple[int | str, ...]]) -> Config:
    # From the back, so that list positions stay what they are; a source becomes the default one.
    for path in sorted(refused, key=str, reverse=True):
        parent: Any = table
        for part in path[:-1]:
            parent = parent[part]
        if isinstance(parent, list):
            index = int(path[-1])
            parent[index] = {
                "type": "zmq",
                "name": f"refused-{index}",
                "bind": "tcp://127.0.0.1:*",
            }
        elif path:
            parent.pop(path[-1], None)
    return Config.model_validate(table)


def _is_under(path: str, blamed: Iterable[str]) -> bool:
    return any(path == other or path.startswith(other + ".") for other in blamed)


def apply_overrides(table: dict[str, Any], overrides: Sequence[str]) -> list[Problem]:
    """Set ``key=value`` pairs in `table`; the problems of those that cannot be set."""
    problems = []
    for given in overrides:
        # Bytes of the command line that are not UTF-8 arrive as lone surrogates.
        override = given.encode(errors="backslashreplace").decode()
        key, separator, text = override.partition("=")
        key = key.strip()
        try:
            if not separator:
                raise ValueError("expected KEY=VALUE, as in segment.hop_s=0.5")
            _set(table, key, _value(text.strip()))
        except ValueError as error:
            problems.append(Problem(f"--set {key}", str(error)))
    return problems


def _value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        table = {}
    if table.keys() == {"value"}:
        return table["value"]
    if not text or text[0] in "[{\"'" or not text.isprintable():
        raise ValueError(f"{text[:40]!r} is not a TOML value")
    return text


def _set(table: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    if not all(parts):
        raise ValueError("is not a path of keys such as segment.hop_s")
    if parts[0] == "sources" and len(parts) > 1:
        table.setdefault("sources", [DEFAULT_SOURCE.model_dump(exclude_defaults=True, mode="json")])
    container: Any = table
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        here = ".".join(parts[:depth])
        if isinstance(container, list):
            if not (part.isascii() and part.isdigit()) or int(part) > len(container):
                raise ValueError(
                    f"{here} is a list of {len(container)}: {part!r} must be a position in it,"
                    f" 0 to {len(container)} (the last appends)"
                )
            index = int(part)
            if index == len(container):
                container.append({})
            if last:
                container[index] = value
            else:
                container = container[index]
        elif isinstance(container, dict):
            if last:
                container[part] = value
            else:
                container = container.setdefault(part, {})
        else:
            raise ValueError(f"{here} is a value, not a table")
