"""Settings in TOML: every fault is told at once, by key, with the nearest key that there is."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from trainer.errors import TrainerError

Location = tuple[int | str, ...]


class Section(BaseModel):
    """A table of settings: no unknown keys, and no change once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Model = TypeVar("_Model", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's content.

    Raises
    ------
    TrainerError
        the file cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise TrainerError(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainerError(f"{path} is not valid TOML: {error}.") from None


def parse(model: type[_Model], values: Mapping[str, Any], path: Path) -> _Model:
    """Values read from `path`, checked.

    Raises
    ------
    TrainerError
        lists every fault, one a line, each with its key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise TrainerError(listing(path, faults(model, error))) from None


def listing(path: Path, lines: Iterable[str]) -> str:
    """Faults under the name of their file, each once."""
    return "\n".join([f"{path}:", *(f"  {line}" for line in dict.fromkeys(lines))])


def faults(model: type[BaseModel], error: ValidationError) -> list[str]:
    """`key: what is wrong`, for each fault that pydantic found."""
    return [_sentence(model, fault) for fault in error.errors()]


def _sentence(model: type[BaseModel], fault: ErrorDetails) -> str:
    location, reached = _follow(model, fault["loc"])
    kind, context = fault["type"], fault.get("ctx", {})
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind == "extra_forbidden":
        known = reached.model_fields if reached is not None else {}
        message = f"there is no such key{_nearest(str(location[-1]), known)}"
    elif kind == "missing":
        message = "is missing"
    elif kind == "union_tag_invalid":
        choices = [name.strip("' ") for name in str(context["expected_tags"]).split(",")]
        location = (*location, "kind")
        message = f"there is no {context['tag']!r}{_nearest(str(context['tag']), choices)}"
        message += f"; there are {', '.join(choices)}"
    elif kind == "union_tag_not_found":
        location, message = (*location, "kind"), "is missing"
    return f"{'.'.join(str(part) for part in location) or 'recipe'}: {message}"


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _follow(annotation: Any, location: Location) -> tuple[Location, type[BaseModel] | None]:
    """The keys that a user wrote of pydantic's location, and the table that the last is in.

    pydantic names the chosen member of a union as if it were a key.
    """
    annotation = _bare(annotation)
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        members = [_bare(member) for member in get_args(annotation)]
        for member in members:
            if location and _kind(member) == location[0] and _kind(member) is not None:
                return _follow(member, location[1:])
        tables = [m for m in members if get_origin(m) is not None or _is_table(m)]
        if len(tables) == 1:
            return _follow(tables[0], location)
        return location, None
    if not location:
        return (), annotation if _is_table(annotation) else None
    head, rest = location[0], location[1:]
    if _is_table(annotation):
        field = annotation.model_fields.get(str(head))
        if field is None or not rest:
            return location, annotation
        below = _follow(field.annotation, rest)
    elif origin in (dict, Mapping):
        below = _follow(get_args(annotation)[1], rest)
    elif origin in (tuple, list):
        below = _follow(get_args(annotation)[0], rest)
    else:
        return location, None
    return (head, *below[0]), below[1]


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _kind(annotation: Any) -> str | None:
    if not _is_table(annotation) or "kind" not in annotation.model_fields:
        return None
    literal = annotation.model_fields["kind"].annotation
    return str(get_args(literal)[0]) if get_origin(literal) is Literal else None
