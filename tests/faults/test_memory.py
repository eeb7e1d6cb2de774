"""A daemon that gets no more memory ends, soon and whole: the next one goes on where it was."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import zmq

from serd.protocol.writer import TapWriter
from serd.types import Encoding
from tests.fakes import wait_until
from tests.faults.processes import Service, child, heard, pushing
from tests.speech import demo_speech
from tests.taps import Collector, Push, blocks

RATE_HZ = 8000
MIB = 1 << 20
STREAMS = 40


def _address_space(pid: int) -> int:
    """Bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _flood(service: Service) -> None:
    """As much audio as the daemon takes, of many streams, until it is gone."""
    writers = [TapWriter(f"flood-{n}", 48_000, Encoding.F32LE, 8) for n in range(STREAMS)]
    payload = bytes(MIB)
    with pushing(service.pull) as push:
        push.sndtimeo = 100
        for number in range(50 * STREAMS):
            if service.daemon.process.poll() is not None:
                return
            try:
                push.send_multipart(writers[number % STREAMS].audio(payload))
            except zmq.Again:
                continue


@pytest.mark.parametrize("spare_mib", [1, 8, 64])
def test_no_more_memory(tmp_path: Path, spare_mib: int) -> None:
    journal, out = tmp_path / "events.sqlite", tmp_path / "heard"
    overrides = (f"journal.path={journal}", "daemon.drain_timeout_s=2.0")
    with (
        Service(tmp_path, overrides) as service,
        child("subscriber", service.events, service.replay, out),
    ):
        collector = Collector(service.events)
        push = Push(service.pull)
        push.send(blocks("before", demo_speech(RATE_HZ)[: 3 * RATE_HZ], RATE_HZ, 100))
        collector.wait_closed(["before"])
        push.close()
        last = collector.cursors[-1]
        collector.close()
        limit = _address_space(service.pid) + spare_mib * MIB
        resource.prlimit(service.pid, resource.RLIMIT_AS, (limit, limit))
        _flood(service)
        # Libraries that cannot report it end the process themselves; serd ends with an error. What
        # it must not do is to linger with half of its threads.
        wait_until(lambda: service.daemon.process.poll() is not None, "the daemon to end", 60)
        assert service.daemon.process.returncode != 0
        service.start()
        wait_until(
            lambda: [line for line in heard(out)[-1:] if line.get("cursor", 0) > last],
            "the subscriber to have gone on",
        )
        lines = [line for line in heard(out) if line["kind"] != "restarted"]
        assert {line["kind"] for line in lines} == {"event"}
        cursors = [line["cursor"] for line in lines]
        assert cursors == sorted(set(cursors))
