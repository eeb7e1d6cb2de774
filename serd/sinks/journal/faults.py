"""What can be wrong with a journal's file, in an operator's words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final

from serd.sinks.journal.store import ForeignFileError

_WORDS: Final = {
    sqlite3.SQLITE_FULL: (
        "disk_full",
        "the disk is full",
        "make room; journalling goes on by itself",
    ),
    sqlite3.SQLITE_READONLY: (
        "read_only",
        "it cannot be written",
        "make the file system and the file writable for serd; journalling goes on by itself",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot_open",
        "it cannot be opened",
        "see that its folder is there and writable for serd; journalling goes on by itself",
    ),
    sqlite3.SQLITE_IOERR: (
        "io_error",
        "the disk reports an error",
        "see the kernel's log and the disk's health; journalling goes on by itself",
    ),
    sqlite3.SQLITE_BUSY: (
        "locked",
        "another program keeps it locked",
        "end that program (fuser names it); journalling goes on by itself",
    ),
    sqlite3.SQLITE_CORRUPT: ("corrupt", "its content is damaged", ""),
    sqlite3.SQLITE_NOTADB: ("corrupt", "it is not a database", ""),
}


def is_corrupt(error: Exception) -> bool:
    """Whether the file itself is at fault, so that another attempt with it would fail alike."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def describe(error: Exception) -> tuple[str, str, str]:
    """A code, what is wrong, and what to do about it."""
    if isinstance(error, ForeignFileError):
        return "foreign_file", str(error), "give [journal] another path, or move the file away"
    if isinstance(error, OSError):
        return "cannot_open", os.strerror(error.errno or 0), "see the permissions of its folder"
    return _WORDS.get(
        _code(error), ("sqlite_error", str(error), "journalling is tried again every second")
    )


def set_aside(path: Path, unix_ns: int) -> Path | None:
    """Give a journal and what belongs to it another name, which is returned; None if it cannot be.

    `unix_ns` is the time that the name is to have.
    """
    stamp = datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
    names = (f"{path.name}.corrupt-{stamp}{f'-{n}' if n else ''}" for n in count())
    kept = next(kept for name in names if not (kept := path.with_name(name)).exists())
    try:
        path.rename(kept)
    except OSError:
        return None
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + ending).rename(kept.with_name(kept.name + ending))
    return kept


def _code(error: Exception) -> int:
    # The lowest byte is the kind; extended codes say more in those above.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
