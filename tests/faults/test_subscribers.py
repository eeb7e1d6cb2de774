"""A subscriber that stops reading, and one that comes back from it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from serd.protocol.writer import TapWriter
from serd.types import Encoding
from tests.fakes import wait_until
from tests.faults.processes import Service, child, heard, pushing
from tests.taps import Collector

# Every short call is two events, of half a kilobyte each.
CALLS = 40_000
# So many at a time, so that the one that does read is never that far behind itself.
LOT = 500
# libzmq queues so many for one subscriber; with what the kernel holds it is far less than all.
SEND_HWM = 2000


def _calls() -> Iterator[list[bytes]]:
    for number in range(CALLS):
        writer = TapWriter(f"short-{number}", 8000, Encoding.MULAW)
        yield writer.start()
        yield writer.end()


@pytest.mark.timeout(240)
def test_a_stopped_subscriber_holds_up_nobody_and_catches_up(tmp_path: Path) -> None:
    overrides = (f"publish.send_hwm={SEND_HWM}", "publish.keep_events=200000")
    path = tmp_path / "heard"
    with (
        Service(tmp_path, overrides) as service,
        child("subscriber", service.events, service.replay, path) as stopped,
        pushing(service.pull) as push,
    ):
        wait_until(lambda: len(heard(path)) > 1, "the subscriber")
        collector = Collector(service.events)
        stopped.signal(signal.SIGSTOP)
        # The other one has everything while the first is still standing.
        for number, message in enumerate(_calls()):
            push.send_multipart(message)
            if number % (2 * LOT) == 2 * LOT - 1:
                wait_until(lambda number=number: len(collector.events) > number, "its events")  # type: ignore[misc]  # bound at once
        published = len(collector.events)
        assert published >= 2 * CALLS
        assert collector.gapless
        wait_until(lambda: service.daemon.logged("subscriber.overrun"), "the overrun to be told")
        assert len(heard(path)) < CALLS
        stopped.signal(signal.SIGCONT)
        last = collector.cursors[-1]
        wait_until(
            lambda: [line for line in heard(path)[-1:] if line.get("cursor", 0) >= last],
            "the stopped subscriber to have caught up",
            120,
        )
        lines = heard(path)
        assert {line["kind"] for line in lines} == {"event"}
        cursors = [line["cursor"] for line in lines]
        # Not as lists, or pytest would explain 80,000 differences.
        assert (cursors[0], cursors[-1]) == (1, len(cursors))
        assert all(later == earlier + 1 for earlier, later in pairwise(cursors))
        collector.close()
        assert service.daemon.stop() == 0
