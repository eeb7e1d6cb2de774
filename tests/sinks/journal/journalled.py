"""A publisher with a journal, and disks that misbehave."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serd.channel import Channel, Overflow, Waker
from serd.clock import Clock
from serd.protocol.events import Event
from serd.sinks.journal.writer import Journal, JournalOptions
from serd.sinks.publisher import Publisher, PublisherOptions
from serd.sinks.ring import EventRing
from tests.fakes import FakeClock
from tests.sinks.harness import Context, Running


@contextmanager
def journalled(
    context: Context,
    path: Path,
    *,
    run_id: str = "0123456789abcdef",
    clock: Clock | None = None,
    keep: int = 10,
    bind: str = "tcp://127.0.0.1:*",
    replay_bind: str = "tcp://127.0.0.1:*",
    max_wait_ms: float = 60_000,
    **options: float,
) -> Iterator[Running]:
    """A publisher that runs with a journal; `keep` events are in memory."""
    clock = clock or FakeClock()
    waker = Waker()
    channel: Channel[Event] = Channel("events", 100_000, Overflow.BLOCK, waker)
    journal = Journal(JournalOptions(path, **options), clock, run_id)  # type: ignore[arg-type]
    journal.open()
    publisher = Publisher(
        PublisherOptions((bind,), (replay_bind,), linger_ms=0, max_wait_ms=max_wait_ms),
        channel,
        waker,
        clock,
        run_id,
        EventRing(keep),
        journal=journal,
    )
    publisher.start()
    running = Running(publisher, channel, context)
    try:
        yield running
    finally:
        for socket in running.sockets:
            socket.close(linger=0)
        assert publisher.stop(20.0)
        assert journal.close(20.0)
        waker.close()


def journal_of(daemon: Running) -> Journal:
    journal = daemon.publisher.journal
    assert journal is not None
    return journal


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A file system of its own size; skips the test where it cannot be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mounting needs privileges: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room there is; the file to remove for it to be there again."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    assert os.statvfs(folder).f_bavail == 0
    return filler
