"""Reading a journal, beside the daemon that writes it or without one."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from serd.protocol.replay import StoredEvent
from serd.sinks.journal.store import check_version

SCAN_LIMIT: Final = 20_000
"""Most events that are looked at for one page, so that a rare topic holds up nobody."""
_GAPS_A_PAGE: Final = 100
_BUSY_S: Final = 1.0
_NO_END: Final = 2**63 - 1


class Past(NamedTuple):
    """A page of events.

    `reached` is the cursor up to which everything was looked at, `more` whether there is more to
    look at. `gaps` are the first and last cursors, up to `reached`, of events that were published
    and are not there.
    """

    events: list[StoredEvent]
    reached: int
    more: bool
    gaps: list[tuple[int, int]]


class Extent(NamedTuple):
    """What a journal has.

    `oldest` and `newest` are the cursors of its oldest and newest event, 0 for none. It knows
    nothing of what was published before the cursor `began`.
    """

    oldest: int
    newest: int
    began: int


class Reader:
    """A journal that is open for reading. One thread.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    sqlite3.Error
        It cannot be opened.
    ForeignFileError
        It is not a journal of this version.

    Notes
    -----
    No transaction is kept open between two calls, so that the writer can put its log away.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = _open(path)
        self._inode = path.stat().st_ino

    @property
    def in_place(self) -> bool:
        """Whether the file that is open is still the one under its name."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def extent(self) -> Extent:
        """What there is."""
        if not self._began():
            return Extent(0, 0, 0)
        # Two queries: SQLite finds either end in its tree at once, but not both in one.
        (oldest,) = self._db.execute("SELECT min(cursor) FROM events").fetchone()
        (newest,) = self._db.execute("SELECT max(cursor) FROM events").fetchone()
        return Extent(oldest or 0, newest or 0, self._began())

    def _began(self) -> int:
        if check_version(self._db) == 0:
            return 0
        row = self._db.execute("SELECT began FROM about").fetchone()
        return int(row[0]) if row else 0

    def missing(self, after: int, before: int) -> int:
        """How many events between two cursors were published and are not there."""
        if not self._began():
            return 0
        row = self._db.execute(
            "SELECT coalesce(sum(min(last, ?2 - 1) - max(first, ?1 + 1) + 1), 0) FROM gaps"
            " WHERE last > ?1 AND first < ?2",
            (after, before),
        ).fetchone()
        return int(row[0])

    def page(
        self, after: int, topics: Sequence[str] = ("",), limit: int = 1000, before: int = _NO_END
    ) -> Past:
        """Events with ``after < their cursor < before`` of any of the topics, oldest first."""
        if not self._began():
            return Past([], after, False, [])
        window = "FROM events WHERE cursor > ? AND cursor < ? ORDER BY cursor LIMIT ?"
        bounds = (after, before, SCAN_LIMIT)
        if "" in topics:
            condition, prefixes = "", []
        else:
            condition = "WHERE " + " OR ".join(["substr(topic, 1, length(?)) = ?"] * len(topics))
            prefixes = [text for topic in topics for text in (topic, topic)]
        rows = self._db.execute(
            "SELECT cursor, CAST(topic AS BLOB), CAST(payload AS BLOB)"
            f" FROM (SELECT * {window}) {condition} LIMIT ?",
            (*bounds, *prefixes, limit + 1),
        ).fetchall()
        events = [StoredEvent(*row) for row in rows[:limit]]
        if len(rows) > limit:
            reached, more = events[-1].cursor, True
        else:
            last, scanned = self._db.execute(
                f"SELECT max(cursor), count(*) FROM (SELECT cursor {window})", bounds
            ).fetchone()
            reached, more = last or after, scanned == SCAN_LIMIT
        gaps = self._gaps(after, reached + 1 if more else before)
        if len(gaps) > _GAPS_A_PAGE:
            # The rest comes with the next page, and the events behind it.
            gaps.pop()
            reached, more = gaps[-1][1], True
            events = [event for event in events if event.cursor <= reached]
        elif not more and gaps:
            reached = max(reached, gaps[-1][1])
        return Past(events, reached, more, gaps)

    def _gaps(self, after: int, before: int) -> list[tuple[int, int]]:
        return [
            (max(first, after + 1), min(last, before - 1))
            for first, last in self._db.execute(
                "SELECT first, last FROM gaps WHERE last > ? AND first < ? ORDER BY first LIMIT ?",
                (after, before, _GAPS_A_PAGE + 1),
            )
        ]

    def cursor_at(self, at_ms: int) -> int:
        """The cursor after which the events published at `at_ms` and later are.

        Milliseconds since 1970. Exact as far as the clock did not go back.
        """
        extent = self.extent()
        low, high = extent.oldest, extent.newest + 1
        while low < high:
            middle = (low + high) // 2
            row = self._db.execute(
                "SELECT cursor, at_ms FROM events WHERE cursor >= ? ORDER BY cursor LIMIT 1",
                (middle,),
            ).fetchone()
            if row is None or row[1] >= at_ms:
                high = middle
            else:
                low = row[0] + 1
        return max(0, low - 1)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _open(path: Path) -> sqlite3.Connection:
    name = f"file:{quote(str(path.absolute()))}?mode=ro"
    db = sqlite3.connect(name, uri=True, timeout=_BUSY_S, isolation_level=None)
    try:
        check_version(db)
    except sqlite3.OperationalError:
        db.close()
        # Without a log there is nobody who writes; SQLite still wants to make a log's index, which
        # it may not on a read-only file system or in somebody else's folder.
        if not path.exists() or path.with_name(path.name + "-wal").exists():
            raise
        db = sqlite3.connect(name + "&immutable=1", uri=True, isolation_level=None)
        check_version(db)
    except BaseException:
        db.close()
        raise
    return db
