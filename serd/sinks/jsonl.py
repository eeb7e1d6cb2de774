"""Events as JSON lines."""

from __future__ import annotations

from typing import Protocol

from serd.protocol.events import Event, encode
from serd.sinks.stamper import Stamper


class Writable(Protocol):
    """A binary file, or what writes like one."""

    def write(self, content: bytes, /) -> object:
        """Write all of it."""
        ...


class JsonlWriter:
    """Writes one event a line, stamped as the publisher stamps them.

    Parameters
    ----------
    file
        Takes the bytes; flushing and closing stay with the caller.
    stamper
        Of the run.

    Notes
    -----
    What `file` raises (a full disk, a closed pipe) passes through.
    """

    def __init__(self, file: Writable, stamper: Stamper) -> None:
        self._file = file
        self._stamper = stamper

    def write(self, event: Event) -> None:
        """Stamp and write an event."""
        self._stamper.stamp(event)
        self._file.write(encode(event) + b"\n")
