"""JSON Schemas of the events, one a type, as they stand in the folder ``schema``.

``python -m serd.protocol.schemas`` writes them anew after a change of `serd.protocol.events`.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from serd.protocol.events import EVENT_TYPES

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def make(kind: str) -> dict[str, Any]:
    """Schema of an event type, from its definition.

    Every field is required, as the daemon always writes all of them; fields that are not named
    may appear in later versions.
    """
    (_,), definitions = msgspec.json.schema_components(
        [EVENT_TYPES[kind]], ref_template="#/$defs/{name}"
    )
    name = EVENT_TYPES[kind].__name__
    root = definitions.pop(name)
    for definition in (root, *definitions.values()):
        if "properties" in definition:
            definition["required"] = list(definition["properties"])
            for value in definition["properties"].values():
                # Defaults belong to the daemon's own bookkeeping.
                value.pop("default", None)
    schema = {"$schema": DIALECT, **root, "title": f"serd event: {kind}"}
    if definitions:
        schema["$defs"] = dict(sorted(definitions.items()))
    return schema


def load(kind: str) -> dict[str, Any]:
    """Schema of an event type, from its file.

    Raises
    ------
    KeyError
        There is no such type.
    """
    if kind not in EVENT_TYPES:
        raise KeyError(kind)
    text = files("serd.protocol").joinpath("schema", f"{kind}.json").read_text()
    schema: dict[str, Any] = json.loads(text)
    return schema


def render(kind: str) -> str:
    """Text of the schema's file."""
    return json.dumps(make(kind), indent=2) + "\n"


def main() -> None:
    """Write the files."""
    folder = Path(__file__).parent / "schema"
    folder.mkdir(exist_ok=True)
    for kind in EVENT_TYPES:
        (folder / f"{kind}.json").write_text(render(kind))


if __name__ == "__main__":
    main()
