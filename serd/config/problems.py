"""From pydantic's errors to sentences that name the key and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from serd.config.schema import SOURCE_MODELS, Config, PeerConfig

# Suffix → (what it is called, how many of the base unit of its kind). Longest suffixes first.
_UNITS: Mapping[str, tuple[str, str, float]] = {
    "_samples": ("samples", "samples", 1.0),
    "_minutes": ("time", "minutes", 60.0),
    "_seconds": ("time", "seconds", 1.0),
    "_khz": ("frequency", "kilohertz", 1000.0),
    "_min": ("time", "minutes", 60.0),
    "_sec": ("time", "seconds", 1.0),
    "_ms": ("time", "milliseconds", 0.001),
    "_us": ("time", "microseconds", 1e-6),
    "_ns": ("time", "nanoseconds", 1e-9),
    "_hz": ("frequency", "hertz", 1.0),
    "_s": ("time", "seconds", 1.0),
}

_EXPECTED: Mapping[str, str] = {
    "missing": "is required",
    "string_type": "must be text in quotes",
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
    "finite_number": "must be a finite number",
}

_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


class Problem(NamedTuple):
    """Dotted path of the key at fault (``sources.0.bind``) and what is wrong with it."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


def key_path(location: Iterable[int | str]) -> tuple[int | str, ...]:
    """Location of an error without the names of union members that pydantic puts into it."""
    parts = tuple(location)
    if len(parts) > 2 and parts[0] == "sources" and parts[2] in SOURCE_MODELS:
        parts = parts[:2] + parts[3:]
    # What is left are keys and list positions: drop the tags of `Text | Integer | None`.
    depth = 3 if parts[:1] == ("sources",) else 4 if parts[:2] == ("security", "peers") else 2
    return parts[:depth] + tuple(part for part in parts[depth:] if isinstance(part, int))


def describe(error: Mapping[str, Any]) -> Problem:
    """The problem that one entry of `ValidationError.errors()` stands for."""
    location = tuple(error["loc"])
    path = key_path(location)
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    dotted = ".".join(map(str, path))
    if kind == "extra_forbidden":
        return Problem(dotted, _unknown_key(path, location, value))
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        given = value.get("type") if isinstance(value, dict) else None
        return Problem(f"{dotted}.type", _choice(given, tuple(SOURCE_MODELS)))
    if kind in {"literal_error", "enum"}:
        choices = [part.strip().strip("'") for part in context["expected"].split(",")]
        choices[-1:] = [part.strip().strip("'") for part in choices[-1].split("' or '")]
        return Problem(dotted, _choice(value, choices))
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        text = f"must be {words} {context[bound]:g}, not {_shown(value)}"
        return Problem(dotted, text + _unit_hint(str(path[-1]), value, kind))
    if kind in {"too_short", "too_long"}:
        word, bound = (
            ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        )
        return Problem(dotted, f"must hold {word} {context[bound]}, not {context['actual_length']}")
    if kind == "value_error":
        return Problem(dotted, f"{context['error']}, not {_shown(value)}")
    if kind == "missing":
        return Problem(dotted, _EXPECTED[kind])
    text = f"{_EXPECTED.get(kind, error['msg'])}, not {_shown(value)}"
    return Problem(dotted, text + _unit_hint(str(path[-1]), value, kind) if path else text)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _choice(value: object, choices: Iterable[str]) -> str:
    choices = tuple(choices)
    text = "must be one of " + ", ".join(f'"{choice}"' for choice in choices)
    if value is None:
        return text
    near = difflib.get_close_matches(
        str(value).lower(), [choice.lower() for choice in choices], n=1, cutoff=0.7
    )
    hint = next((choice for choice in choices if choice.lower() in near), None)
    return f"{text}, not {_shown(value)}" + (f'; did you mean "{hint}"?' if hint else "")


def _valid_keys(path: tuple[int | str, ...], location: tuple[int | str, ...]) -> list[str]:
    """Names that could stand where the last part of `path` stands."""
    if len(path) == 1:
        return list(Config.model_fields)
    if path[0] == "sources":
        return list(SOURCE_MODELS[str(location[2])].model_fields)
    if path[:2] == ("security", "peers"):
        return list(PeerConfig.model_fields)
    section = Config.model_fields[str(path[0])].default
    return list(type(section).model_fields)


def _unknown_key(
    path: tuple[int | str, ...], location: tuple[int | str, ...], value: object
) -> str:
    key, valid = str(path[-1]), _valid_keys(path, location)
    stem, unit = _split_unit(key)
    for name in valid:
        other_stem, other_unit = _split_unit(name)
        if other_stem == stem and other_unit:
            return f"unknown key; did you mean {name}{_converted(value, unit, other_unit)}?"
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    for section, info in Config.model_fields.items():
        fields = getattr(type(info.default), "model_fields", {})
        if key in fields and len(path) < 3:
            return f"unknown key; did you mean {section}.{key}?"
    return "unknown key; there are " + ", ".join(valid)


def _split_unit(key: str) -> tuple[str, str]:
    for suffix in _UNITS:
        if key.endswith(suffix) and len(key) > len(suffix):
            return key.removesuffix(suffix), suffix
    return key, ""


def _converted(value: object, unit: str, wanted: str) -> str:
    """`` = 500 (milliseconds)`` for a value of 0.5 under a key that ends in ``_s``."""
    kind, words, scale = _UNITS[wanted]
    if (
        unit
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and _UNITS[unit][0] == kind
    ):
        return f" = {value * _UNITS[unit][2] / scale:g} ({words})"
    return f" ({words})"


def _unit_hint(key: str, value: object, kind: str) -> str:
    """What to write where a number is off by the thousand between seconds and milliseconds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if key.endswith("_ms") and kind in {"int_type", "greater_than_equal"} and 0 < value < 100:
        return f"; it is in milliseconds: {value:g} s is {value * 1000:g}"
    if key.endswith("_s") and kind == "less_than_equal" and value >= 100:
        return f"; it is in seconds: {value:g} ms is {value / 1000:g}"
    return ""
