"""The journal's file against a model of it: what was published is there, or said not to be."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serd.protocol.replay import StoredEvent
from serd.sinks.journal import store as store_module
from serd.sinks.journal.files import Marked
from serd.sinks.journal.reader import Reader
from serd.sinks.journal.store import Batch, ForeignFileError, Store

FIRST = 1 << 40
TOPICS = ("emotion.a", "emotion.b", "speech.a", "stream.ü/0")


def event(cursor: int, topic: str = "emotion.a") -> StoredEvent:
    return StoredEvent(cursor, topic.encode(), f'{{"cursor":{cursor},"stream":"ü"}}'.encode())


def read_all(
    path: Path, after: int = 0, topic: str = "", limit: int = 3
) -> tuple[list[StoredEvent], list[int]]:
    """Every event page by page, and every cursor that is said to be missing, each once."""
    events: list[StoredEvent] = []
    missing: list[int] = []
    with closing(Reader(path)) as reader:
        more = True
        while more:
            page = reader.page(after, (topic,), limit)
            assert len(page.events) <= limit
            events += page.events
            for first, last in page.gaps:
                missing += range(first, last + 1)
            assert page.reached > after or not page.more
            after, more = page.reached, page.more
    assert missing == sorted(set(missing))
    return events, missing


class JournalModel(RuleBasedStateMachine):
    """Runs that publish, lose, forget, are killed and come again."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "events.sqlite"
        self.run = Marked("r0", FIRST, FIRST - 1)
        self.next = FIRST
        self.now_ms = 0
        self.kept: dict[int, tuple[StoredEvent, int]] = {}
        self.missing: set[int] = set()
        self.unwritten: list[tuple[int, int]] = []
        self.marked: Marked | None = None
        self.store = Store(self.path, self.run, None)

    def teardown(self) -> None:
        self.store.close()
        self._folder.cleanup()

    @rule(topics=st.lists(st.sampled_from(TOPICS), min_size=1, max_size=150))
    def publish(self, topics: list[str]) -> None:
        events = [event(self.next + place, topic) for place, topic in enumerate(topics)]
        self.next += len(events)
        self.now_ms += 10
        self.store.append([Batch(events, self.now_ms)], self.unwritten)
        self._written()
        self.kept |= {one.cursor: (one, self.now_ms) for one in events}

    @rule(number=st.integers(1, 5))
    def lose(self, number: int) -> None:
        self.unwritten.append((self.next, self.next + number - 1))
        self.next += number

    @rule()
    def write_what_is_lost(self) -> None:
        self.store.append([], self.unwritten)
        self._written()

    def _written(self) -> None:
        for first, last in self.unwritten:
            self.missing |= set(range(first, last + 1))
        self.unwritten.clear()

    @rule(age_ms=st.integers(0, 60))
    def expire(self, age_ms: int) -> None:
        before = self.now_ms - age_ms
        forgotten = {c for c, (_, at_ms) in self.kept.items() if at_ms < before}
        count = 0
        while some := self.store.expire(before):
            count += some
        assert count == len(forgotten)
        if forgotten:
            upto = max(forgotten)
            self.missing |= forgotten
            for cursor in forgotten:
                del self.kept[cursor]
            assert not any(c <= upto for c in self.kept)

    @rule(unjournalled=st.integers(0, 4), jump=st.integers(1, 1000), clean=st.booleans())
    def start_anew(self, unjournalled: int, jump: int, clean: bool) -> None:
        """A run ends after having published some that only the mark, or nothing, knows of."""
        if clean:
            self.store.append([], self.unwritten)
            self._written()
        self.unwritten.clear()
        newest = max(
            [
                *(c for c in self.kept if c >= self.run.first),
                *(c for c in self.missing if c >= self.run.first),
                self.run.first - 1,
            ]
        )
        self.next = newest + 1
        if unjournalled:
            last = newest + unjournalled
            self.marked = Marked(self.run.run_id, self.run.first, last)
            self.missing |= set(range(newest + 1, last + 1))
            self.next = last + 1
        self.store.close()
        self.run = Marked(f"r{self.next}", self.next + jump, self.next + jump - 1)
        self.next += jump
        self.store = Store(self.path, self.run, self.marked)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def resume_anywhere(self, data: st.DataObject) -> None:
        after = data.draw(st.integers(FIRST - 1, self.next))
        topic = data.draw(st.sampled_from(["", "emotion.", "speech.a", "stream.ü"]))
        events, missing = read_all(self.path, after, topic, data.draw(st.integers(1, 50)))
        wanted = [
            one
            for cursor, (one, _) in sorted(self.kept.items())
            if cursor > after and one.topic.startswith(topic.encode())
        ]
        assert events == wanted
        assert missing == sorted(c for c in self.missing if c > after)

    @invariant()
    def everything_is_there_or_said_not_to_be(self) -> None:
        events, missing = read_all(self.path, FIRST - 1, limit=40)
        assert [one.cursor for one in events] == sorted(self.kept)
        assert missing == sorted(self.missing)
        with closing(Reader(self.path)) as reader:
            assert reader.missing(FIRST - 1, self.next) == len(self.missing)


TestJournalModel = JournalModel.TestCase


def test_many_gaps_come_in_pages(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with closing(Store(path, Marked("r", FIRST, FIRST - 1), None)) as store:
        for place in range(500):
            lost = FIRST + 2 * place
            store.append([Batch([event(lost + 1)], 0)], [(lost, lost)])
    events, missing = read_all(path, FIRST - 1, limit=1000)
    assert [one.cursor for one in events] == [FIRST + 2 * n + 1 for n in range(500)]
    assert missing == [FIRST + 2 * n for n in range(500)]


def test_a_second_attempt_changes_nothing(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "j", Marked("r", FIRST, FIRST - 1), None)) as store:
        for _ in range(2):
            store.append([Batch([event(FIRST), event(FIRST + 1)], 0)])
    assert len(read_all(tmp_path / "j")[0]) == 2


def test_a_large_journal_shrinks_and_gives_its_pages_back(tmp_path: Path) -> None:
    path = tmp_path / "j"
    payload = b'"' + b"x" * 2000 + b'"'
    with closing(Store(path, Marked("r", FIRST, FIRST - 1), None)) as store:
        for begin in range(0, 6000, 500):
            batch = [StoredEvent(FIRST + begin + n, b"emotion.a", payload) for n in range(500)]
            store.append([Batch(batch, 0)])
        store.checkpoint()
        large = path.stat().st_size
        while store.shrink(2 << 20):
            pass
        while store.give_back():
            pass
        store.checkpoint()
    events, missing = read_all(path, FIRST - 1, limit=1000)
    assert path.stat().st_size <= 3 << 20 < large
    assert 500 <= len(events) < 1100
    assert events[-1].cursor == FIRST + 5999
    assert missing == list(range(FIRST, events[0].cursor))


def test_old_runs_are_forgotten_and_said_to_be_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_KEPT_RUNS", 3)
    path = tmp_path / "j"
    for number in range(10):
        first = FIRST + 100 * number
        with closing(Store(path, Marked(f"r{number}", first, first - 1), None)) as store:
            store.append([Batch([event(first)], number)])
            store.expire(number)
    with closing(Reader(path)) as reader:
        assert reader.extent().began == FIRST + 700
        assert reader.page(0).gaps == [(FIRST + 700, FIRST + 700), (FIRST + 800, FIRST + 800)]


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
    with pytest.raises(ForeignFileError, match="not a journal"):
        Store(path, Marked("r", FIRST, FIRST - 1), None)
    newer = tmp_path / "newer"
    Store(newer, Marked("r", FIRST, FIRST - 1), None).close()
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version=2")
    with pytest.raises(ForeignFileError, match="version 2"):
        Reader(newer)


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    Store(tmp_path / "j", Marked("r", FIRST, FIRST - 1), None).close()
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_a_moment_is_found_by_bisection(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with closing(Store(path, Marked("r", FIRST, FIRST - 1), None)) as store:
        for number in range(300):
            store.append([Batch([event(FIRST + 7 * number)], 1000 + number // 3)])
    with closing(Reader(path)) as reader:
        for at_ms in (0, 1000, 1001, 1050, 1099, 1100):
            found = reader.page(reader.cursor_at(at_ms), limit=1000).events
            place = max(0, min(300, (at_ms - 1000) * 3))
            assert [one.cursor for one in found] == [FIRST + 7 * n for n in range(place, 300)]
