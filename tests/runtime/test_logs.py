"""Where log lines go and what they look like there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from serd.runtime import logs


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def _say(stderr: Path, journal: Path, style: str) -> list[str]:
    """Lines of a process whose standard error is a file, which may pose as the journal."""
    with stderr.open("w") as out:
        status = journal.stat()
        environ = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        program = (
            "import structlog\nfrom serd.runtime import logs\n"
            f"logs.configure('debug', {style!r})\nlog = structlog.get_logger()\n"
            "log.debug('a')\nlog.info('b')\nlog.warning('c', n=1)\nlog.error('d')\n"
            "try: 1 / 0\nexcept ZeroDivisionError: log.exception('e')\n"
        )
        command = [sys.executable, "-c", program]
        subprocess.run(command, stderr=out, env=environ, check=True)
    return stderr.read_text().splitlines()


def test_the_journal_gets_json_behind_syslog_priorities(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    lines = _say(log, log, "auto")
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>", "<3>"]
    entries = [json.loads(line[3:]) for line in lines]
    assert [entry["event"] for entry in entries] == ["a", "b", "c", "d", "e"]
    assert "ZeroDivisionError" in entries[-1]["exception"]


def test_every_line_of_a_traceback_for_people_has_its_priority(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    lines = _say(log, log, "console")
    assert len(lines) > 6
    assert all(line.startswith("<3>") for line in lines[3:])


def test_an_inherited_variable_alone_changes_nothing(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    lines = _say(tmp_path / "log", journal, "auto")
    assert [json.loads(line)["event"] for line in lines] == ["a", "b", "c", "d", "e"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_readable_lines() -> None:
    terminal = _Terminal()
    logs.configure("info", "auto", terminal)
    structlog.get_logger().info("source.open", source="zmq-0")
    text = terminal.getvalue()
    assert "source.open" in text
    assert not text.startswith(("{", "<"))
