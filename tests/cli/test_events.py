"""``serd events`` on a journal that a daemon wrote."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serd.cli import execute
from serd.protocol.events import Event, encode, topic
from serd.protocol.replay import StoredEvent
from serd.sinks.journal.files import Marked
from serd.sinks.journal.store import Batch, Store
from serd.sinks.stamper import Stamper
from tests.fakes import FakeClock
from tests.protocol import examples as make

RUN = "0123456789abcdef"
FIRST = 1 << 40
EVENTS: list[Event] = [make.emotion("a"), make.speech("b"), make.utterance("a"), make.emotion("b")]


class Written:
    """A journal, and a hand that writes it: one event a minute from 2026-01-01 00:00 UTC."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.stamper = Stamper(RUN, self.clock, FIRST)
        self.store = Store(path, Marked(RUN, FIRST, FIRST - 1), None)

    def write(self, *events: Event) -> None:
        for event in events:
            self.stamper.stamp(event)
            stored = StoredEvent(event.cursor, topic(event), encode(event))
            self.store.append([Batch([stored], self.clock.unix_ns() // 1_000_000)])
            self.clock.advance(60)


@pytest.fixture
def journal(tmp_path: Path) -> Written:
    written = Written(tmp_path / "events.sqlite")
    with closing(written.store):
        written.write(*EVENTS)
    return written


Events = Callable[..., tuple[int, str, str]]


@pytest.fixture
def events(capsys: pytest.CaptureFixture[str]) -> Events:
    """The command on a journal: its exit status, what it prints and what it complains of."""

    def run(journal: Path, *options: str) -> tuple[int, str, str]:
        status = execute(["events", "--journal", str(journal), *options])
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [0, 1, 2, 3]),
        (["--topic", "emotion."], [0, 3]),
        (["--topic", "emotion.b", "--topic", "utterance."], [2, 3]),
        (["--since", "2026-01-01T00:01:00Z"], [1, 2, 3]),
        (["--since", "2026-01-01T00:00:30Z", "--until", "2026-01-01T00:02:30Z"], [1, 2]),
        (["--until", "2025-12-31"], []),
        (["--since", "30m"], []),
        (["--after", f"{RUN}-{FIRST + 1}"], [2, 3]),
        (["--after", str(FIRST + 2)], [3]),
        (["--count", "2"], [0, 1]),
    ],
)
def test_what_is_asked_for_is_shown(
    events: Events, journal: Written, options: list[str], expected: list[int]
) -> None:
    status, out, err = events(journal.path, "--json", *options)
    assert (status, err) == (0, "")
    assert [json.loads(line)["cursor"] - FIRST for line in out.splitlines()] == expected


def test_as_a_table_for_other_programs(events: Events, journal: Written) -> None:
    _, out, _ = events(journal.path, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["type"] for row in rows] == ["emotion", "speech", "utterance", "emotion"]
    assert rows[0]["label"] == "angry"
    assert rows[1]["label"] == ""
    assert rows[3]["stream"] == "b"


def test_for_people(events: Events, journal: Written) -> None:
    _, out, _ = events(journal.path)
    first = datetime(2026, 1, 1, tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert len(out.splitlines()) == 5
    assert out.splitlines()[1].startswith(first)
    assert "angry" in out


def test_what_is_missing_is_told_apart(events: Events, tmp_path: Path) -> None:
    written = Written(tmp_path / "j")
    with closing(written.store):
        written.write(make.emotion("a"))
        written.store.append([], [(FIRST + 1, FIRST + 3)])
    _, out, err = events(written.path, "--json")
    assert len(out.splitlines()) == 1
    assert "3 events" in err


def test_following_a_journal_that_is_written(tmp_path: Path) -> None:
    written = Written(tmp_path / "j")
    command = [sys.executable, "-m", "serd", "events", "--follow", "--json", "--journal"]
    with closing(written.store):
        written.write(make.emotion("a"))
        with subprocess.Popen([*command, str(written.path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for number in range(3):
                assert json.loads(process.stdout.readline())["cursor"] == FIRST + number
                written.write(make.emotion("a"))
            process.kill()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no journal"), (b"x" * 5000, "not a database")],
)
def test_a_file_that_is_none_is_named(
    events: Events, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "events"
    if content:
        path.write_bytes(content)
    status, _, err = events(path)
    assert status == 66
    assert message in err
    assert str(path) in err


@pytest.mark.parametrize(
    "options",
    [["--json", "--csv"], ["--follow", "--until", "1h"], ["--since", "soon"], ["--after", "x"]],
)
def test_options_that_make_no_sense(events: Events, journal: Written, options: list[str]) -> None:
    status, _, err = events(journal.path, *options)
    assert status == 64
    assert err
