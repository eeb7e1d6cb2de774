"""The journal's writer: one thread, group commits, and what it does when the disk fails.

Nothing here makes the publisher wait: events are handed over, and `Journal.settled` tells how far
they are down. A disk that is full, read-only or broken costs the journal events and nobody else
any; the newest of those are kept in memory and written when it can be written again.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from serd.channel import Waker
from serd.clock import Clock
from serd.errors import JournalError
from serd.protocol.replay import JOURNALLED_FROM, StoredEvent
from serd.sinks.journal.checkpoints import Checkpointer
from serd.sinks.journal.faults import describe, is_corrupt, set_aside
from serd.sinks.journal.files import Lock, Mark, Marked
from serd.sinks.journal.gaps import Gaps
from serd.sinks.journal.reader import Reader
from serd.sinks.journal.store import Batch, ForeignFileError, Store, Synchronous
from serd.threads import name_thread

QUEUE_EVENTS: Final = 20_000
"""Most events that wait to be written; overflow: the journal goes without the new ones, or where
it cannot be written, without the oldest."""
_UPKEEP_S: Final = 1.0
_RETRY_NS: Final = 1_000_000_000
# Unix milliseconds, times this: room for a million events a second for ever.
_CURSORS_A_MS: Final = 1024

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class JournalOptions:
    """Where the journal is and how much it keeps.

    Parameters
    ----------
    path
        The SQLite file; made if there is none, in a folder that is there.
    owner
        Name of the daemon, for others that want the same file.
    ttl_h
        Hours after which an event is forgotten.
    max_mib
        Size of the file in MiB beyond which the oldest events are forgotten.
    synchronous
        ``full`` waits for the disk at every commit.
    """

    path: Path
    owner: str = "serd"
    ttl_h: float = 72.0
    max_mib: float = 1024.0
    synchronous: Synchronous = "normal"


class Journal:
    """Writes events in a thread of its own.

    Parameters
    ----------
    options
        Where and how much.
    clock
        Says when an event has outlived its time.
    run_id
        Of this run.
    """

    def __init__(self, options: JournalOptions, clock: Clock, run_id: str) -> None:
        self.path = options.path
        self.first = 0
        """First cursor of this run, once open."""
        self.settled = 0
        """Every event up to this cursor is in the journal, or has been given up for now."""
        self.problem: str | None = None
        """What keeps events out of the journal and what to do about it, or None. Any thread."""
        self.began = 0
        """Cursor before which the journal knows nothing. Any thread."""
        self.oldest = 0
        """Cursor of the oldest event in the journal, 0 for none, as of a moment ago. Any thread."""
        self._options = options
        self._clock = clock
        self._run_id = run_id
        self._lock = Lock(options.path)
        self._mark = Mark(options.path)
        self._earlier: Marked | None = None
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        # Each is changed by one thread alone, so that their difference needs no lock.
        self._put = self._taken = 0
        # Not yet committed, oldest first.
        self._backlog: deque[Batch] = deque()
        self._backlog_events = 0
        self._gaps = Gaps()
        self._store: Store | None = None
        self._retry_ns = 0
        self._upkeep_ns = 0
        self._begin_anew = False
        self._committed_upto = 0
        self._waker: Waker | None = None
        self._checkpointer = Checkpointer(options.path)
        self._thread = threading.Thread(target=self._run, name="serd-journal", daemon=True)
        self._counts = dict.fromkeys(
            ("committed", "commits", "failures", "unjournalled", "expired", "queue_peak"), 0
        )
        self._bytes = self._grown = 0

    @property
    def ok(self) -> bool:
        """Whether events reach the journal. Any thread."""
        return self.problem is None

    @property
    def queued(self) -> int:
        """Events that were handed over and not yet looked at. Any thread."""
        return self._put - self._taken

    def counts(self) -> dict[str, int]:
        """Monotonic counters, and ``bytes``, ``queue`` and ``ok`` as they are now. Any thread."""
        return {
            **self._counts,
            "bytes": self._bytes,
            "queue": self.queued,
            "backlog": self._backlog_events,
            "ok": int(self.ok),
        }

    def open(self) -> int:
        """Take the journal for this process; return the first cursor of this run.

        It is above every cursor that was ever published with this journal: above those that are
        in it and the mark's, and above those that neither could take as long as the clock goes
        forward, because it begins at the clock's milliseconds.

        Raises
        ------
        JournalError
            Codes ``journal_in_use``, ``journal_foreign`` and ``journal_folder``.
        """
        path = self.path
        if not path.parent.is_dir() or path.is_dir():
            raise JournalError(
                "journal_folder",
                f"the journal {path} cannot be made: "
                + (f"{path} is a folder" if path.is_dir() else f"{path.parent} is not there"),
            )
        self._lock.take(f"{self._options.owner}, process {os.getpid()}")
        try:
            newest = self._look()
        except BaseException:
            self._lock.release()
            raise
        self._earlier = self._mark.read()
        known = max(newest, self._earlier.last if self._earlier else 0)
        clock = self._clock.unix_ns() // 1_000_000 * _CURSORS_A_MS
        self.first = max(known + 1, clock, JOURNALLED_FROM)
        self.settled = self._committed_upto = self.first - 1
        self.began = self.first
        with contextlib.suppress(OSError):
            self._mark.prepare()
        return self.first

    def _look(self) -> int:
        """The newest cursor in the file; a damaged file is set aside."""
        if not self.path.exists() or not self.path.stat().st_size:
            return 0
        try:
            reader = Reader(self.path)
            try:
                newest = reader.extent().newest
                reader.page(max(0, newest - 1000))
            finally:
                reader.close()
        except ForeignFileError as error:
            raise JournalError(
                "journal_foreign",
                f"{self.path} {error}: give [journal] another path, or move the file away",
            ) from None
        except sqlite3.Error as error:
            if is_corrupt(error):
                self._set_aside(error)
            else:
                # The writer will meet the same and tell it.
                _log.debug("journal.unreadable", error=str(error))
            return 0
        return newest

    def start(self, waker: Waker) -> None:
        """Begin to write; `waker` is woken whenever `settled` has grown."""
        self._waker = waker
        self._thread.start()
        self._checkpointer.start()

    def keep(self, ttl_h: float, max_mib: float) -> None:
        """Change how much is kept. Any thread; takes effect within a second."""
        self._options = replace(self._options, ttl_h=ttl_h, max_mib=max_mib)

    def put(self, batch: Batch) -> None:
        """Hand events over, their cursors above all before. One thread; never waits."""
        number = len(batch.events)
        queued = self.queued + number
        if queued > QUEUE_EVENTS:
            self._do_without(batch.events)
            return
        self._counts["queue_peak"] = max(self._counts["queue_peak"], queued)
        self._put += number
        self._queue.put(batch)

    def do_without(self, cursor: int) -> None:
        """Say that no event will come under a cursor."""
        self._gaps.add(cursor, cursor)

    def unwritten_gaps(self) -> list[tuple[int, int]]:
        """First and last cursors of what the journal will not have and does not say yet."""
        return self._gaps.ranges

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what was handed over and end; return whether that was done in time."""
        done = True
        if self._thread.ident is not None:
            self._queue.put(None)
            self._thread.join(timeout_s)
            done = not self._thread.is_alive()
            self._checkpointer.stop()
        if done:
            self._mark.close()
            self._lock.release()
        return done

    def _run(self) -> None:
        name_thread("serd-journal")
        going = True
        while going:
            going, batches = self._next()
            self._backlog.extend(batches)
            self._backlog_events += sum(len(batch.events) for batch in batches)
            now_ns = self._clock.monotonic_ns()
            if self._store is not None or now_ns >= self._retry_ns or not going:
                self._attempt(self._write)
                if self._begin_anew:
                    self._begin_anew = False
                    self._attempt(self._write)
            self._settle(batches)
            if self._grown:
                self._attempt(self._checkpoint)
            if self._store is not None and now_ns - self._upkeep_ns >= _UPKEEP_S * 1e9:
                self._upkeep_ns = now_ns
                self._attempt(self._upkeep)
        if self._store is not None:
            self._close_store()

    def _next(self) -> tuple[bool, list[Batch]]:
        """Whether to go on, and everything that was handed over; waits for it for a while."""
        batches: list[Batch] = []
        wait: float | None = _UPKEEP_S
        with contextlib.suppress(queue.Empty):
            while True:
                batch = self._queue.get(wait is not None, wait)
                if batch is None:
                    return False, batches
                batches.append(batch)
                wait = None
        return True, batches

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (sqlite3.Error, ForeignFileError, OSError) as error:
            self._failed(error)

    def _write(self) -> None:
        store = self._store
        if store is None:
            run = Marked(self._run_id, self.first, self._committed_upto)
            store = Store(self.path, run, self._earlier, self._options.synchronous)
            self._store = store
            self.began = store.began
        gaps = self._gaps.to_write()
        if self._backlog or gaps:
            self._grown += store.append(self._backlog, gaps)
            self._counts["committed"] += self._backlog_events
            self._counts["commits"] += 1
            if self._backlog:
                self._committed_upto = self._backlog[-1].events[-1].cursor
            self._backlog.clear()
            self._backlog_events = 0
            self._gaps.written()
        if self.problem is not None:
            self.problem = None
            _log.info(
                "journal.resumed",
                path=str(self.path),
                unjournalled=self._counts["unjournalled"],
            )

    def _checkpoint(self) -> None:
        grown, self._grown = self._grown, 0
        if self._store is not None:
            self._checkpointer.grown(grown, self._store.checkpoint)

    def _settle(self, batches: Sequence[Batch]) -> None:
        if self.problem is not None and self._backlog:
            self._trim()
            # Before they are published: a run after this one must know of them.
            last = max(self._backlog[-1].events[-1].cursor, self._gaps.newest)
            self._mark.write(Marked(self._run_id, self.first, last))
        if batches:
            self._taken += sum(len(batch.events) for batch in batches)
            self.settled = batches[-1].events[-1].cursor
            if self._waker is not None:
                self._waker.wake()

    def _trim(self) -> None:
        while self._backlog_events > QUEUE_EVENTS:
            batch = self._backlog.popleft()
            self._backlog_events -= len(batch.events)
            self._do_without(batch.events)

    def _do_without(self, events: Sequence[StoredEvent]) -> None:
        self._counts["unjournalled"] += len(events)
        self._gaps.add(events[0].cursor, events[-1].cursor)

    def _failed(self, error: Exception) -> None:
        self._counts["failures"] += 1
        self._retry_ns = self._clock.monotonic_ns() + _RETRY_NS
        code, what, remedy = describe(error)
        told = self.problem
        self.problem = f"the journal {self.path}: {what}" + (f": {remedy}" if remedy else "")
        self._close_store()
        if is_corrupt(error) and self._set_aside(error):
            self._begin_anew = True
        elif told != self.problem:
            _log.error(
                "journal.failed",
                path=str(self.path),
                code=code,
                problem=what,
                remedy=remedy,
                error=str(error),
                effect="events are published, and not journalled",
            )

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(sqlite3.Error):
                store.close()

    def _set_aside(self, error: Exception) -> bool:
        """Give a damaged file another name; whether that succeeded."""
        kept = set_aside(self.path, self._clock.unix_ns())
        if kept is None:
            return False
        _log.error(
            "journal.set_aside",
            path=str(self.path),
            kept=str(kept),
            error=str(error),
            effect="a new journal is begun; what the old one had cannot be asked for",
        )
        return True

    def _upkeep(self) -> None:
        store = self._store
        assert store is not None
        if not store.in_place:
            raise FileNotFoundError(2, "removed")
        before_ms = self._clock.unix_ns() // 1_000_000 - round(self._options.ttl_h * 3_600_000)
        max_bytes = round(self._options.max_mib * (1 << 20))
        # In slices, and only while nobody waits to be written; what is left goes next time.
        while self._queue.empty():
            expired = store.expire(before_ms) or store.shrink(max_bytes)
            self._counts["expired"] += expired
            if not expired and not store.give_back():
                break
        self.oldest = store.oldest
        self._bytes = sum(
            file.stat().st_size
            for file in (self.path, self.path.with_name(self.path.name + "-wal"))
            if file.exists()
        )
