"""Checkpoints of the journal: they wait for the disk, which the writer must not.

A checkpoint by another connection leaves the writer free, but as long as the writer goes on, what
it wrote meanwhile is left over, and the write-ahead log cannot begin anew. Once it has become
long, the writer itself brings in the little that is left.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog

from serd.sinks.journal.store import checkpoint
from serd.threads import name_thread

_CHECKPOINT_BYTES: Final = 4 << 20
_LONG_BYTES: Final = 48 << 20

_log = structlog.get_logger(__name__)


class Checkpointer:
    """Makes checkpoints in a thread of its own, when the log has grown.

    Parameters
    ----------
    path
        The journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due = threading.Event()
        self._stopping = False
        self._since_checkpoint = self._since_begun = 0
        self._thread = threading.Thread(target=self._run, name="serd-checkpoint", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def grown(self, number: int, by_writer: Callable[[], bool]) -> None:
        """The log has grown by so many bytes; `by_writer` makes a checkpoint. Writer's thread."""
        self._since_checkpoint += number
        self._since_begun += number
        if self._since_checkpoint >= _CHECKPOINT_BYTES:
            self._since_checkpoint = 0
            if self._since_begun >= _LONG_BYTES:
                if by_writer():
                    self._since_begun = 0
            else:
                self._due.set()

    def stop(self) -> None:
        """End; one that waits for the disk is left to itself."""
        self._stopping = True
        self._due.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        name_thread("serd-checkpoint")
        while True:
            self._due.wait()
            self._due.clear()
            if self._stopping:
                return
            try:
                # Not one that would make the file anew where it has been taken away.
                name = f"file:{quote(str(self._path.absolute()))}?mode=rw"
                db = sqlite3.connect(name, uri=True, isolation_level=None)
                try:
                    checkpoint(db)
                finally:
                    db.close()
            except sqlite3.Error as error:
                # The writer meets the same sooner or later, and tells it.
                _log.debug("journal.checkpoint_failed", error=str(error))
