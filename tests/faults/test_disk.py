"""A journal whose disk is full, read-only or was damaged: every event is still published."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from serd.protocol.writer import TapWriter
from serd.types import Encoding
from tests.fakes import wait_until
from tests.faults.processes import Service, child, heard, pushing
from tests.taps import Collector

MIB = 1 << 20


@contextmanager
def _small_disk(folder: Path, options: str = "") -> Iterator[Path]:
    """A file system of 40 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size=40m{options}", "serd-test", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily, so that a daemon that still holds a file there cannot keep the test from ending.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def _calls(push: zmq.Socket[bytes], first: int, count: int) -> list[str]:
    """Calls without a word: two events each."""
    names = [f"call-{number}" for number in range(first, first + count)]
    for name in names:
        writer = TapWriter(name, 8000, Encoding.MULAW)
        push.send_multipart(writer.start())
        push.send_multipart(writer.audio(bytes(800)))
        push.send_multipart(writer.end())
    return names


def _rows(journal: Path) -> list[int]:
    db = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
    try:
        return [row[0] for row in db.execute("SELECT cursor FROM events ORDER BY cursor")]
    finally:
        db.close()


def test_a_full_disk_costs_no_subscriber_an_event(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk") as disk:
        journal, filler, out = disk / "events.sqlite", disk / "filler", tmp_path / "heard"
        with (
            Service(tmp_path, (f"journal.path={journal}",)) as service,
            child("subscriber", service.events, service.replay, out),
            pushing(service.pull) as push,
        ):
            collector = Collector(service.events)
            collector.wait_closed(_calls(push, 0, 100))
            _fill(filler)
            # More than may still fit into what SQLite has of the disk.
            collector.wait_closed(_calls(push, 100, 6000))
            wait_until(lambda: service.daemon.logged("journal.failed"), "the alarm in the log")
            wait_until(lambda: collector.events[-1]["type"] == "daemon", "a heartbeat")
            counts = collector.events[-1]["counts"]
            assert counts["journal.ok"] == 0
            assert counts["journal.failures"] > 0
            assert collector.gapless
            assert sum(event["type"] == "stream" for event in collector.events) == 2 * 6100

            filler.unlink()
            wait_until(lambda: service.daemon.logged("journal.resumed"), "the journal to go on")
            collector.wait_closed(_calls(push, 6100, 100))
            assert collector.gapless
            last = collector.cursors[-1]
            wait_until(
                lambda: [line for line in heard(out)[-1:] if line.get("cursor", 0) >= last],
                "the recovering subscriber",
            )
            assert {line["kind"] for line in heard(out)} == {"event"}
            collector.close()
            assert service.daemon.stop() == 0
            # What came after the disk had room again is there, in order.
            rows = _rows(journal)
            assert rows == sorted(rows)
            assert last in rows


def test_a_daemon_that_dies_with_a_full_disk_goes_on_above_its_cursors(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk") as disk:
        journal, filler = disk / "events.sqlite", disk / "filler"
        with Service(tmp_path, (f"journal.path={journal}",)) as service:
            with pushing(service.pull) as push:
                collector = Collector(service.events)
                collector.wait_closed(_calls(push, 0, 50))
                _fill(filler)
                collector.wait_closed(_calls(push, 50, 6000))
                wait_until(lambda: service.daemon.logged("journal.failed"), "the alarm")
                last = collector.cursors[-1]
                collector.close()
            service.kill()
            # Still full.
            service.start()
            collector = Collector(service.events)
            with pushing(service.pull) as push:
                collector.wait_closed(_calls(push, 0, 50))
            assert collector.cursors[0] > last
            assert collector.gapless
            collector.close()
            assert service.daemon.stop() == 0


def test_a_disk_that_cannot_be_written_costs_no_event(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Service(tmp_path, (f"journal.path={disk / 'events.sqlite'}",)) as service:
            collector = Collector(service.events)
            with pushing(service.pull) as push:
                collector.wait_closed(_calls(push, 0, 200))
                wait_until(lambda: service.daemon.logged("journal.failed"), "the alarm in the log")
                subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
                wait_until(lambda: service.daemon.logged("journal.resumed"), "the journal to go on")
                collector.wait_closed(_calls(push, 200, 50))
            assert collector.gapless
            last = collector.cursors[-1]
            collector.close()
            assert service.daemon.stop() == 0
        assert last in _rows(disk / "events.sqlite")


@pytest.mark.parametrize("damage", ["head", "middle", "all"])
def test_a_damaged_journal_is_set_aside_and_kept(tmp_path: Path, damage: str) -> None:
    journal = tmp_path / "events.sqlite"
    with Service(tmp_path, (f"journal.path={journal}",)) as service:
        collector = Collector(service.events)
        with pushing(service.pull) as push:
            collector.wait_closed(_calls(push, 0, 500))
        last = collector.cursors[-1]
        collector.close()
        assert service.daemon.stop() == 0
        size = journal.stat().st_size
        assert size > 100_000
        spans = {"head": (0, 512), "middle": (size // 4, size), "all": (0, size)}
        begin, end = spans[damage]
        with journal.open("r+b") as file:
            file.seek(begin)
            file.write(os.urandom(end - begin))
        service.start()
        collector = Collector(service.events)
        with pushing(service.pull) as push:
            collector.wait_closed(_calls(push, 500, 200))
        assert collector.gapless
        assert collector.cursors[0] > last
        newest = collector.cursors[-1]
        wait_until(lambda: service.daemon.logged("journal.set_aside"), "the damage to be told")
        collector.close()
        assert service.daemon.stop() == 0
    kept = [path for path in tmp_path.iterdir() if ".corrupt-" in path.name]
    assert any(path.stat().st_size == size for path in kept), kept
    assert newest in _rows(journal)
