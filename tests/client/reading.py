"""A subscriber to be killed: ``python -m tests.client.reading …``.

Arguments: the endpoints of events and of replay, and a file. Every item is one line of it, written
at once; after a kill the next process goes on after the last whole line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from serd.client import Missed, Restarted, Subscriber


def main() -> None:
    """Read until killed."""
    endpoint, replay, path = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    path.touch()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    ids = [line for line in whole.decode().splitlines() if not line.startswith("#")]
    with (
        path.open("ab", buffering=0) as out,
        Subscriber(endpoint, replay=replay, after=ids[-1] if ids else 0) as subscriber,
    ):
        for item in subscriber:
            line = f"#{item}" if isinstance(item, Missed | Restarted) else item.id
            out.write(f"{line}\n".encode())


if __name__ == "__main__":
    main()
