"""The audit log: what is appended, what survives, and what shows when somebody changes it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from serd.cli import execute
from serd.errors import ConfigError
from serd.runtime.audit import FIRST, AuditLog, audit_path
from serd.runtime.chain import verify
from tests.fakes import FakeClock


def written(path: Path, *events: str, max_bytes: int = 1 << 20) -> AuditLog:
    log = AuditLog(path, max_bytes, FakeClock(monotonic_ns=10**9))
    log.start()
    for event in events:
        log.record(event, stream="call-1")
        assert log.flush(10)
    log.stop()
    return log


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_the_chain_goes_on_over_runs_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, "start", "stop")
    log = written(path, "start", "stream.refused", "stop")
    records = [json.loads(line) for line in lines(path)]
    assert [record["event"] for record in records] == [
        "start",
        "stop",
        "start",
        "stream.refused",
        "stop",
    ]
    assert records[0]["previous"] == FIRST
    assert verify([path]).breaks == []
    assert log.counts() == {"records": 3, "failures": 0, "lost": 0}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("line", range(4))
def test_a_line_that_is_changed_or_missing_shows(tmp_path: Path, line: int) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, "start", "a", "b", "c", "stop")
    whole = lines(path)
    changed = whole.copy()
    changed[line] = changed[line].replace(b"call-1", b"call-2")
    path.write_bytes(b"".join(changed))
    assert len(verify([path]).breaks) == 1
    path.write_bytes(b"".join(whole[:line] + whole[line + 1 :]))
    shown = verify([path])
    assert shown.breaks or shown.first_previous != FIRST
    path.write_bytes(b"".join([*whole[: line + 1], whole[line], *whole[line + 1 :]]))
    assert verify([path]).breaks


def test_a_log_that_was_cut_off_shows_against_a_hash_that_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, "start", "a", "stop")
    kept = verify([path]).last
    assert execute(["audit", "verify", str(path), "--expect", kept]) == os.EX_OK
    path.write_bytes(b"".join(lines(path)[:-1]))
    assert verify([path]).breaks == []
    assert execute(["audit", "verify", str(path)]) == os.EX_OK
    assert execute(["audit", "verify", str(path), "--expect", kept]) == os.EX_DATAERR


def test_a_line_torn_by_a_power_loss_is_told_from_a_change(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, "start", "a")
    path.write_bytes(path.read_bytes()[:-20])
    written(path, "start", "stop")
    verdict = verify([path])
    assert (len(verdict.torn), verdict.breaks) == (1, [])
    path.write_bytes(
        path.read_bytes().replace(b'"stream": "call-1", "prev', b'"stream": "x", "prev')
    )
    assert verify([path]).breaks


def test_a_file_that_is_full_is_set_aside_and_the_chain_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, *("a" for _ in range(10)), max_bytes=400)
    aside = sorted(tmp_path.glob("audit-*.jsonl"), key=lambda file: (len(file.name), file.name))
    assert len(aside) >= 3
    files = [*aside, *([path] if path.exists() else [])]
    verdict = verify(files)
    assert (verdict.records, verdict.breaks, verdict.first_previous) == (10, [], FIRST)
    assert verify([files[0], *files[2:]]).breaks


def test_a_disk_that_fails_holds_nobody_up_and_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = AuditLog(folder / "audit.jsonl", 1, FakeClock(monotonic_ns=10**9))
    log.start()
    log.record("start")
    assert log.flush(10)
    # Set aside after every record; the next one has no folder to go to.
    moved = folder.rename(tmp_path / "elsewhere")
    log.record("lost")
    assert log.flush(10)
    moved.rename(folder)
    log.record("a")
    assert log.flush(10)
    log.stop()
    assert log.counts() == {"records": 2, "failures": 1, "lost": 1}


def test_a_flood_is_summed_up(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    clock = FakeClock(monotonic_ns=10**9)
    log = AuditLog(path, 1 << 20, clock)
    log.start()

    def flood() -> None:
        for _ in range(500):
            log.record("stream.refused")

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.advance(2)
    log.record("stop")
    log.stop()
    records = [json.loads(line) for line in lines(path)]
    assert [record["event"] for record in records] == [*["stream.refused"] * 100, "omitted", "stop"]
    assert records[-2]["stream.refused"] == 1900
    assert verify([path]).breaks == []


def test_a_log_that_was_asked_for_and_cannot_be_written_refuses_the_start(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "none" / "audit.jsonl", 1, FakeClock())
    with pytest.raises(ConfigError, match=r"audit\.path"):
        log.start()


def test_where_it_lies() -> None:
    assert audit_path("", {"LOGS_DIRECTORY": "/l"}) is None
    assert audit_path("auto", {}) is None
    assert audit_path("auto", {"STATE_DIRECTORY": "/s"}) == Path("/s/audit.jsonl")
    both = {"STATE_DIRECTORY": "/s", "LOGS_DIRECTORY": "/l:/m"}
    assert audit_path("auto", both) == Path("/l/audit.jsonl")
    assert audit_path("/a/b", both) == Path("/a/b")
