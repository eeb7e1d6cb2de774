"""A subscriber that can be killed at any moment: ``python -m tests.faults.subscriber …``.

Arguments: the endpoint of events, that of replay, and a file. Every item goes into the file as one
line, in one write, before the next is asked for: the file is all that the process knows. A new one
with the same file goes on after the last whole line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from serd.client import Item, Missed, Restarted, Subscriber
from serd.protocol.events import DaemonEvent, ShadowEvent


def _line(item: Item) -> dict[str, Any]:
    if isinstance(item, Missed):
        return {"kind": "missed", "events": item.events, "after": item.after, "stream": item.stream}
    if isinstance(item, Restarted):
        return {"kind": "restarted", "run": item.run_id}
    line = {"kind": "event", "id": item.id, "cursor": item.cursor}
    if isinstance(item, DaemonEvent):
        return {**line, "daemon": item.state}
    if isinstance(item, ShadowEvent):
        return {**line, "stream": item.stream}
    return {**line, "stream": item.stream, "seq": item.seq}


def main() -> None:
    """Subscribe to everything, until killed."""
    endpoint, replay, path = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    last: str | int = 0
    if path.exists():
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        os.truncate(path, len(whole))
        for raw in reversed(whole.splitlines()):
            line = json.loads(raw)
            if line["kind"] == "event":
                last = line["id"]
                break
    with path.open("ab", buffering=0) as out, Subscriber(endpoint, replay=replay, after=last) as it:
        for item in it:
            out.write(json.dumps(_line(item)).encode() + b"\n")


if __name__ == "__main__":
    main()
