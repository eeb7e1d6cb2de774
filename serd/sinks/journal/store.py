"""The journal's SQLite file, as its one writer sees it.

WAL mode (https://sqlite.org/wal.html): what is committed survives the end of the process, however
it comes; with ``synchronous=NORMAL`` a power cut may take the last moments, with ``FULL`` not.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from serd.protocol.replay import StoredEvent
from serd.sinks.journal.files import Marked

APPLICATION_ID: Final = 0x53657264
VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE events (
    cursor INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, topic TEXT NOT NULL, payload TEXT NOT NULL);
CREATE TABLE runs (first INTEGER PRIMARY KEY, last INTEGER, run_id TEXT NOT NULL);
CREATE TABLE gaps (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE about (began INTEGER NOT NULL);
"""
_ROW: Final = "(?,?,CAST(? AS TEXT),CAST(? AS TEXT))"
# One statement for many rows: SQLite's step gives the interpreter lock away, and getting it back
# from a busy thread may take as long as a hundred rows.
_ROWS_A_STATEMENT: Final = 64
_BUSY_S: Final = 1.0
_WAL_LIMIT_BYTES: Final = 64 << 20
_KEPT_RUNS: Final = 2000
_SLICE: Final = 500
_VACUUM_PAGES: Final = 256

Synchronous = Literal["normal", "full"]


class ForeignFileError(Exception):
    """The file is a database of something else, or of a newer serd."""


class Batch(NamedTuple):
    """Events that were taken together, and when, in milliseconds since 1970."""

    events: Sequence[StoredEvent]
    at_ms: int


class Store:
    """A journal that is open for writing. One thread.

    Parameters
    ----------
    path
        The file; made if there is none.
    run
        This run: its id, its first cursor, and the last one that an earlier file got of it.
    marked
        What the mark says of an earlier run.

    Raises
    ------
    sqlite3.Error
        It cannot be opened or written.
    ForeignFileError
        It is not a journal of this version.
    """

    def __init__(
        self, path: Path, run: Marked, marked: Marked | None, synchronous: Synchronous = "normal"
    ) -> None:
        self._path = path
        with contextlib.suppress(OSError):
            # What people said to each other is nobody else's business.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        try:
            self._open(run, marked, synchronous)
            self._inode = path.stat().st_ino
        except BaseException:
            self._db.close()
            raise

    def _open(self, run: Marked, marked: Marked | None, synchronous: Synchronous) -> None:
        db = self._db
        version = check_version(db)
        if version == 0:
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={synchronous}")
        # Checkpoints wait for the disk; another thread makes them.
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT_BYTES}")
        # What has outlived its time must not linger in free pages.
        db.execute("PRAGMA secure_delete=FAST")
        with _transaction(db):
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute("INSERT INTO about VALUES (?)", (run.first,))
                db.execute(f"PRAGMA application_id={APPLICATION_ID}")
                db.execute(f"PRAGMA user_version={VERSION}")
            self._end_earlier_runs(run, marked)
            db.execute("INSERT OR IGNORE INTO runs VALUES (?, NULL, ?)", (run.first, run.run_id))
            if version == 0 and run.last >= run.first:
                self._add_gap(run.first, run.last)

    def _end_earlier_runs(self, run: Marked, marked: Marked | None) -> None:
        db = self._db
        if marked is not None and marked.first < run.first and marked.last >= self.began:
            db.execute(
                "INSERT OR IGNORE INTO runs VALUES (?, NULL, ?)", (marked.first, marked.run_id)
            )
        for first, run_id in db.execute(
            "SELECT first, run_id FROM runs WHERE last IS NULL AND first < ?", (run.first,)
        ).fetchall():
            (end,) = db.execute(
                "SELECT coalesce(min(first), ?) FROM runs WHERE first > ?", (run.first, first)
            ).fetchone()
            (last,) = db.execute(
                "SELECT max(?1 - 1,"
                " coalesce((SELECT max(cursor) FROM events WHERE cursor >= ?1 AND cursor < ?2), 0),"
                " coalesce((SELECT max(last) FROM gaps WHERE first >= ?1 AND first < ?2), 0))",
                (first, end),
            ).fetchone()
            if marked is not None and marked.run_id == run_id and marked.last > last:
                self._add_gap(last + 1, marked.last)
                last = marked.last
            db.execute("UPDATE runs SET last = ? WHERE first = ?", (last, first))

    def _add_gap(self, first: int, last: int) -> None:
        before = self._db.execute("SELECT first FROM gaps WHERE last = ?", (first - 1,)).fetchone()
        self._db.execute(
            "INSERT INTO gaps VALUES (?, ?)"
            " ON CONFLICT (first) DO UPDATE SET last = max(last, excluded.last)",
            (before[0] if before else first, last),
        )

    @property
    def began(self) -> int:
        """Cursor that the file was begun at; of what came before it knows nothing."""
        began: int = self._db.execute("SELECT began FROM about").fetchone()[0]
        return began

    @property
    def oldest(self) -> int:
        """Cursor of the oldest event, 0 for none."""
        return int(self._db.execute("SELECT min(cursor) FROM events").fetchone()[0] or 0)

    def append(self, batches: Sequence[Batch], gaps: Sequence[tuple[int, int]] = ()) -> int:
        """Commit events, and the first and last cursors of those that will never be there.

        Returns
        -------
        int
            Bytes that this brings into the write-ahead log, by estimate.
        """
        rows = [
            (event.cursor, batch.at_ms, event.topic, event.payload)
            for batch in batches
            for event in batch.events
        ]
        if len(rows) <= _ROWS_A_STATEMENT and not gaps:
            self._insert(rows)
        else:
            with _transaction(self._db):
                for begin in range(0, len(rows), _ROWS_A_STATEMENT):
                    self._insert(rows[begin : begin + _ROWS_A_STATEMENT])
                for first, last in gaps:
                    self._add_gap(first, last)
        return 8192 + sum(len(row[3]) + 64 for row in rows)

    def _insert(self, rows: Sequence[tuple[object, ...]]) -> None:
        if rows:
            # Ignored: what an earlier attempt brought in though it seemed to fail.
            self._db.execute(
                f"INSERT OR IGNORE INTO events VALUES {','.join([_ROW] * len(rows))}",
                [value for row in rows for value in row],
            )

    def expire(self, before_ms: int) -> int:
        """Forget some of the oldest events that are older than a time; return how many."""
        oldest = self._db.execute(
            "SELECT cursor, at_ms FROM events ORDER BY cursor LIMIT ?", (_SLICE,)
        ).fetchall()
        upto = None
        for cursor, at_ms in oldest:
            if at_ms >= before_ms:
                break
            upto = cursor
        return 0 if upto is None else self._forget(upto)

    def shrink(self, max_bytes: int) -> int:
        """Forget some of the oldest events if the file is too large; return how many."""
        if self._pages_in_use() * self._page_bytes() <= max_bytes:
            return 0
        oldest = self._db.execute(
            "SELECT max(cursor), count(*) FROM (SELECT cursor FROM events ORDER BY cursor LIMIT ?)",
            (_SLICE,),
        ).fetchone()
        # The newest are never forgotten, however small the limit.
        return self._forget(oldest[0]) if oldest[1] == _SLICE else 0

    def _forget(self, upto: int) -> int:
        db = self._db
        with _transaction(db):
            count = db.execute("DELETE FROM events WHERE cursor <= ?", (upto,)).rowcount
            db.execute("DELETE FROM gaps WHERE last <= ?", (upto,))
            db.execute(
                "INSERT OR REPLACE INTO gaps SELECT first, min(coalesce(last, ?1), ?1) FROM runs"
                " WHERE first <= ?1 AND coalesce(last, ?1) >= first",
                (upto,),
            )
            self._forget_runs(upto)
        return count

    def _forget_runs(self, upto: int) -> None:
        db = self._db
        kept = db.execute(
            "SELECT first FROM runs ORDER BY first DESC LIMIT 1 OFFSET ?", (_KEPT_RUNS - 1,)
        ).fetchone()
        if kept is not None and kept[0] <= upto:
            db.execute("DELETE FROM runs WHERE first < ?", kept)
            db.execute("DELETE FROM gaps WHERE first < ?", kept)
            db.execute("UPDATE about SET began = ?", kept)

    def give_back(self) -> bool:
        """Return some free pages to the file system if there are many; whether there were."""
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        if free < _VACUUM_PAGES or free < pages // 8:
            return False
        # Fetched to the end: every row that it returns is one page.
        self._db.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
        return True

    def checkpoint(self) -> bool:
        """Bring the write-ahead log into the file; whether all of it is in."""
        return checkpoint(self._db)

    def _pages_in_use(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(pages) - int(free)

    def _page_bytes(self) -> int:
        return int(self._db.execute("PRAGMA page_size").fetchone()[0])

    @property
    def in_place(self) -> bool:
        """Whether the file that is open is still the one under its name."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; SQLite then brings the write-ahead log into it."""
        self._db.close()


def check_version(db: sqlite3.Connection) -> int:
    """Version of an open journal, 0 for an empty file.

    Raises
    ------
    ForeignFileError
        The file is something else, or newer.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and application == 0 and tables == 0:
        return 0
    if application != APPLICATION_ID:
        raise ForeignFileError("is a database, but not a journal of serd")
    if version != VERSION:
        raise ForeignFileError(
            f"is a journal of version {version}, this serd knows version {VERSION}"
        )
    return int(version)


def checkpoint(db: sqlite3.Connection) -> bool:
    """Bring the write-ahead log into the file without holding up anybody; whether all is in."""
    busy, in_log, brought_in = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not busy and in_log == brought_in


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back on its own after some errors.
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
