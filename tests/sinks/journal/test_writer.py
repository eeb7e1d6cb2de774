"""The journal behind a publisher: on good disks and on bad ones."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from serd.errors import JournalError
from serd.protocol.replay import JOURNALLED_FROM, ReplayDone, ReplayRequest
from serd.sinks.journal import writer
from serd.sinks.journal.files import Mark
from serd.sinks.journal.reader import Reader
from serd.sinks.journal.store import Batch, Store
from serd.sinks.journal.writer import Journal, JournalOptions
from tests.fakes import FakeClock, wait_until
from tests.protocol import examples as make
from tests.sinks.harness import Context, Running, ask, receive
from tests.sinks.journal.journalled import fill, journal_of, journalled, small_disk

HOUR_S = 3600


def stored(path: Path) -> list[int]:
    with closing(Reader(path)) as reader:
        return [event.cursor for event in reader.page(0, limit=100_000).events]


def nudge(daemon: Running, clock: FakeClock, seconds: float = 2.0) -> None:
    """Let time pass, and the journal's thread see it."""
    clock.advance(seconds)
    daemon.publish(make.emotion())


def test_an_event_is_journalled_before_it_is_published(
    zmq_context: Context, tmp_path: Path
) -> None:
    path = tmp_path / "j"
    with journalled(zmq_context, path) as daemon:
        socket = daemon.subscribe(b"")
        for _ in range(200):
            daemon.channel.put(make.emotion())
            assert receive(socket).cursor == stored(path)[-1]
        first = journal_of(daemon).first
    assert stored(path) == list(range(first, first + 200))


def test_a_cursor_never_goes_back(zmq_context: Context, tmp_path: Path) -> None:
    path, last = tmp_path / "j", 0
    clock = FakeClock()
    for step_s in (0, 1, -HOUR_S, HOUR_S, 0):
        clock.advance(step_s)
        with journalled(zmq_context, path, clock=clock) as daemon:
            daemon.publish(make.emotion(), make.emotion())
            assert journal_of(daemon).first > max(last, JOURNALLED_FROM)
            last = daemon.publisher.last_cursor
    assert stored(path)[-1] == last


def test_a_second_journal_on_the_file_is_refused(
    zmq_context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serd.sinks.journal.files._PATIENCE_S", 0.0)
    with (
        journalled(zmq_context, tmp_path / "j"),
        pytest.raises(JournalError, match="belongs to another daemon"),
    ):
        Journal(JournalOptions(tmp_path / "j"), FakeClock(), "r").open()


@pytest.mark.parametrize("where", ["nowhere/j", "."])
def test_a_path_that_cannot_be_a_journal_is_refused(tmp_path: Path, where: str) -> None:
    with pytest.raises(JournalError) as caught:
        Journal(JournalOptions(tmp_path / where), FakeClock(), "r").open()
    assert caught.value.code == "journal_folder"


def test_another_program_s_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(JournalError, match="not a journal"):
        Journal(JournalOptions(path), FakeClock(), "r").open()
    assert path.read_bytes() == before


def test_events_outlive_neither_their_time_nor_the_size(
    zmq_context: Context, tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "j"
    with journalled(zmq_context, path, clock=clock, ttl_h=1.0) as daemon:
        daemon.publish(*(make.emotion() for _ in range(1200)))
        clock.advance(HOUR_S + 10)
        daemon.publish(make.emotion())
        wait_until(
            lambda: stored(path) == [daemon.publisher.last_cursor], "the old to be forgotten"
        )
        assert journal_of(daemon).counts()["expired"] == 1200
        _, done = ask(daemon.dealer(), ReplayRequest(after=journal_of(daemon).first))
        assert isinstance(done, ReplayDone)
        assert done.expired == 1199


def test_a_full_disk_costs_no_event(zmq_context: Context, tmp_path: Path) -> None:
    clock = FakeClock()
    with (
        small_disk(tmp_path, 2048),
        journalled(zmq_context, tmp_path / "j", clock=clock) as daemon,
    ):
        journal = journal_of(daemon)
        socket = daemon.subscribe(b"")
        daemon.publish(*(make.emotion() for _ in range(50)))
        filler = fill(tmp_path)
        # What the write-ahead log has room for still goes in.
        while journal.ok:
            daemon.publish(*(make.emotion() for _ in range(50)))
        assert journal.problem is not None
        assert "disk is full" in journal.problem
        daemon.publish(*(make.emotion() for _ in range(100)))
        newest = daemon.publisher.last_cursor
        marked = Mark(tmp_path / "j").read()
        assert marked is not None
        assert marked.last == newest
        filler.unlink()
        nudge(daemon, clock)
        wait_until(lambda: journal.ok, "journalling to go on")
        newest = daemon.publisher.last_cursor
        published = [receive(socket).cursor for _ in range(newest - journal.first + 1)]
        assert published == list(range(journal.first, newest + 1))
        assert stored(tmp_path / "j") == published


def test_what_a_full_disk_kept_out_is_known_to_the_next_run(
    zmq_context: Context, tmp_path: Path, clock: FakeClock
) -> None:
    with small_disk(tmp_path, 2048):
        path = tmp_path / "j"
        with journalled(zmq_context, path, clock=clock) as daemon:
            daemon.publish(*(make.emotion() for _ in range(5)))
            filler = fill(tmp_path)
            while journal_of(daemon).ok:
                daemon.publish(*(make.emotion() for _ in range(50)))
            daemon.publish(*(make.emotion() for _ in range(7)))
            first, last = journal_of(daemon).first, daemon.publisher.last_cursor
        before = stored(path)
        assert before[-1] < last
        filler.unlink()
        # Even with a clock that stands.
        with journalled(zmq_context, path, clock=clock, run_id="f" * 16) as daemon:
            assert journal_of(daemon).first == max(last + 1, first)
            daemon.publish(make.emotion())
            events, done = ask(daemon.dealer(), ReplayRequest(after=before[-1]))
            assert isinstance(done, ReplayDone)
            assert done.gaps == ((before[-1] + 1, last),)
            assert done.expired == last - before[-1]
            assert events == []


def test_a_read_only_disk_costs_no_event(zmq_context: Context, tmp_path: Path) -> None:
    path = tmp_path / "j"
    with small_disk(tmp_path, 4096):
        with journalled(zmq_context, path) as daemon:
            daemon.publish(*(make.emotion() for _ in range(20)))
            last = daemon.publisher.last_cursor
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        clock = FakeClock(unix_ns=FakeClock().unix_ns() + 10**9)
        with journalled(zmq_context, path, clock=clock, run_id="f" * 16) as daemon:
            journal = journal_of(daemon)
            daemon.publish(*(make.emotion() for _ in range(20)))
            assert not journal.ok
            assert journal.first > last
            # What is in it can still be asked for, and then what is in memory.
            dealer = daemon.dealer()
            events, done = ask(dealer, ReplayRequest(after=0))
            assert [event.cursor for event in events] == stored(path)
            assert isinstance(done, ReplayDone)
            assert done.more
            last = daemon.publisher.last_cursor
            kept: list[int] = []
            while isinstance(done, ReplayDone) and done.more:
                events, done = ask(dealer, ReplayRequest(after=done.after))
                kept += [event.cursor for event in events]
            assert kept[-10:] == list(range(last - 9, last + 1))
            subprocess.run(["mount", "-o", "remount,rw", str(tmp_path)], check=True)
            nudge(daemon, clock)
            wait_until(lambda: journal.ok, "journalling to go on")
        assert len(stored(path)) == 41


@pytest.mark.parametrize("garbage", [b"not a database at all" * 500, None])
def test_a_damaged_journal_is_set_aside(
    zmq_context: Context, tmp_path: Path, garbage: bytes | None
) -> None:
    path = tmp_path / "j"
    with journalled(zmq_context, path) as daemon:
        daemon.publish(*(make.emotion() for _ in range(50)))
    if garbage is None:
        # The header is whole, what it leads to is not.
        content = path.read_bytes()
        garbage = content[:100] + bytes(len(content) - 100)
    path.write_bytes(garbage)
    with journalled(zmq_context, path, run_id="f" * 16) as daemon:
        daemon.publish(make.emotion())
        assert journal_of(daemon).ok
        [kept] = tmp_path.glob("j.corrupt-*Z")
        assert kept.read_bytes() == garbage
        assert stored(path) == [daemon.publisher.last_cursor]


def test_a_journal_damaged_under_way_is_set_aside_and_its_events_told_as_gone(
    zmq_context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j"
    with journalled(zmq_context, path) as daemon:
        daemon.publish(*(make.emotion() for _ in range(20)))
        journal = journal_of(daemon)
        damaged = sqlite3.DatabaseError("database disk image is malformed")
        damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        append = Store.append

        def fail(
            self: Store, batches: Sequence[Batch], gaps: Sequence[tuple[int, int]] = ()
        ) -> int:
            monkeypatch.setattr(Store, "append", append)
            raise damaged

        monkeypatch.setattr(Store, "append", fail)
        daemon.publish(*(make.emotion() for _ in range(15)))
        wait_until(lambda: journal.ok, "a new journal")
        assert len(list(tmp_path.glob("j.corrupt-*Z"))) == 1
        events, done = ask(daemon.dealer(), ReplayRequest(after=journal.first - 1))
        assert isinstance(done, ReplayDone)
        assert done.gaps == ((journal.first, journal.first + 19),)
        assert events[0].cursor == journal.first + 20


def test_a_journal_that_is_removed_is_made_anew(
    zmq_context: Context, tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "j"
    with journalled(zmq_context, path, clock=clock) as daemon:
        daemon.publish(make.emotion())
        for file in tmp_path.glob("j*"):
            if not file.name.endswith(("-lock", "-cursor")):
                file.unlink()
        nudge(daemon, clock)
        wait_until(lambda: journal_of(daemon).counts()["failures"] == 1, "the removal to be seen")
        nudge(daemon, clock)
        wait_until(lambda: journal_of(daemon).ok, "journalling to go on")
        assert stored(path)[-1] == daemon.publisher.last_cursor


def test_a_locked_journal_costs_no_event(
    zmq_context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serd.sinks.journal.store._BUSY_S", 0.01)
    path, clock = tmp_path / "j", FakeClock()
    with journalled(zmq_context, path, clock=clock) as daemon:
        daemon.publish(make.emotion())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            daemon.publish(*(make.emotion() for _ in range(5)))
            problem = journal_of(daemon).problem
            assert problem is not None
            assert problem.startswith(f"the journal {path}: ")
            assert "locked" in problem
            assert "fuser" in problem
        nudge(daemon, clock)
        wait_until(lambda: journal_of(daemon).ok, "journalling to go on")
    assert len(stored(path)) == 7


def test_a_disk_that_stands_still_delays_events_once(
    zmq_context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, go_on = tmp_path / "j", threading.Event()
    append = Store.append

    def stall(self: Store, batches: Sequence[Batch], gaps: Sequence[tuple[int, int]] = ()) -> int:
        assert go_on.wait(20)
        return append(self, batches, gaps)

    clock = FakeClock()
    with journalled(zmq_context, path, clock=clock, max_wait_ms=50) as daemon:
        socket = daemon.subscribe(b"")
        daemon.publish(make.emotion())
        monkeypatch.setattr(Store, "append", stall)
        daemon.channel.put(make.emotion())
        wait_until(lambda: journal_of(daemon).queued == 1, "the stall")
        clock.advance(0.05)
        # Wakes the publisher, as its own time-out would.
        daemon.channel.put(make.emotion())
        cursors = [receive(socket).cursor for _ in range(3)]
        assert daemon.publisher.journal_counts()["journal.behind"] == 1
        daemon.publish(make.emotion(), make.emotion())
        assert stored(path) == cursors[:1]
        go_on.set()
        wait_until(
            lambda: daemon.publisher.journal_counts()["journal.behind"] == 0,
            "the journal to catch up",
        )
        daemon.publish(make.emotion())
        assert daemon.publisher.journal_counts()["journal.late"] == 4
    assert len(stored(path)) == 6


def test_what_overflows_is_counted_and_told_as_missing(
    zmq_context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "QUEUE_EVENTS", 10)
    path = tmp_path / "j"
    with journalled(zmq_context, path) as daemon:
        journal = journal_of(daemon)
        unwritable = sqlite3.OperationalError("disk I/O error")
        unwritable.sqlite_errorcode = sqlite3.SQLITE_IOERR
        append = Store.append

        def fail(
            self: Store, batches: Sequence[Batch], gaps: Sequence[tuple[int, int]] = ()
        ) -> int:
            raise unwritable

        daemon.publish(make.emotion())
        monkeypatch.setattr(Store, "append", fail)
        for _ in range(25):
            daemon.publish(make.emotion())
        assert journal.counts()["unjournalled"] == 15
        monkeypatch.setattr(Store, "append", append)
    with closing(Reader(path)) as reader:
        page = reader.page(0)
    first = journal.first
    assert [event.cursor for event in page.events] == [first, *range(first + 16, first + 26)]
    assert page.gaps == [(first + 1, first + 15)]
