"""The machine's clock is put an hour forward, or back, under a daemon at work."""

from __future__ import annotations

import shutil
import struct
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.daemon import Json
from tests.fakes import wait_until
from tests.faults.processes import Service, child
from tests.taps import Collector

COMPILER = shutil.which("cc")


def _emitted(event: Json) -> datetime:
    return datetime.fromisoformat(event["emitted_at"])


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler, for a clock that can be stepped")
@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_clock_that_is_stepped_disturbs_no_call(tmp_path: Path, step_s: int) -> None:
    assert COMPILER is not None
    library, offset = tmp_path / "stepped_clock.so", tmp_path / "offset"
    source = Path(__file__).with_name("stepped_clock.c")
    build = [COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(build, check=True, timeout=60)
    offset.write_bytes(bytes(8))
    environ = {"LD_PRELOAD": str(library), "SERD_CLOCK_OFFSET": str(offset)}
    overrides = ("streams.idle_timeout_s=3.0", "daemon.heartbeat_s=0.2")
    with Service(tmp_path, overrides, environ=environ) as service:
        collector = Collector(service.events)
        with child("tap", service.pull, "--streams", 5, "--seconds", 8) as tap:
            calls = [f"call-{number:03}" for number in range(5)]
            wait_until(lambda: len(collector.of_type("emotion")) > 5, "the calls to be judged")
            before = len(collector.events)
            with offset.open("r+b") as file:
                file.write(struct.pack("<q", step_s))
            collector.wait_closed(calls)
            assert tap.process.wait(30) == 0
        events = collector.events
        jump = max(
            abs(_emitted(later) - _emitted(earlier))
            for earlier, later in zip(events[before - 1 :], events[before:], strict=False)
        )
        assert jump > timedelta(minutes=55), "the clock was not stepped"
        for event in collector.of_type("stream"):
            assert event["reason"] in (None, "end"), event
        assert not collector.of_type("gap")
        assert collector.gapless
        # Neither waits nor latencies are taken from that clock.
        for event in collector.of_type("emotion"):
            assert 0 <= event["latency_ms"]["total"] < 60_000, event["latency_ms"]
        for beat in collector.of_type("daemon"):
            assert 0 <= beat["uptime_s"] < 300
        collector.close()
        assert service.daemon.stop() == 0
