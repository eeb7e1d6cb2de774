"""Where the journal of a configuration is, and two daemons that want the same."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from serd.config.schema import Config, JournalSection, PublishSection
from serd.runtime.journalling import journal_path, make_ring, open_journal
from serd.sinks.journal.reader import Reader
from serd.sinks.journal.writer import QUEUE_EVENTS
from tests.daemon import running_daemon
from tests.fakes import FakeClock

STATE = {"STATE_DIRECTORY": "/var/lib/serd:/var/lib/other"}


@pytest.mark.parametrize(
    ("configured", "environ", "expected"),
    [
        ("auto", STATE, Path("/var/lib/serd/events.sqlite")),
        ("auto", {}, None),
        ("", STATE, None),
        ("/srv/j", STATE, Path("/srv/j")),
    ],
)
def test_where_it_is(configured: str, environ: dict[str, str], expected: Path | None) -> None:
    assert journal_path(configured, environ) == expected


def test_what_waits_for_the_journal_is_kept_in_memory(tmp_path: Path) -> None:
    section = JournalSection(path=str(tmp_path / "j"))
    config = Config(journal=section, publish=PublishSection(keep_events=1))
    assert make_ring(config, None).capacity == 1
    journal = open_journal(config, FakeClock(), "r")
    assert journal is not None
    assert make_ring(config, journal).capacity > QUEUE_EVENTS
    journal.close()


def test_a_daemon_with_a_journal_and_a_second_one(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    override = f"journal.path={path}"
    names = ("daemon.name=berlin", "daemon.name=paris")
    with running_daemon(tmp_path, overrides=[override, names[0]]) as daemon:
        [opened] = daemon.logged("journal.open")
        assert opened["path"] == str(path)
        command = [sys.executable, "-m", "serd", "run"]
        for option in (override, names[1], "publish.bind=tcp://127.0.0.1:*"):
            command += ["--set", option]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 73
        assert f"berlin, process {daemon.process.pid}" in second.stderr
        assert daemon.stop() == 0
    with closing(Reader(path)) as reader:
        states = [event.topic for event in reader.page(0).events]
    assert states[0] == b"daemon.ready"
    assert states[-1] == b"daemon.stopped"
