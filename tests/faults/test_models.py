"""Models that answer nonsense or never answer, in a daemon with calls."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from serd.types import Int16Array
from tests.fakes import wait_until
from tests.faults.processes import Service
from tests.speech import demo_speech
from tests.taps import Collector, Push, blocks

RATE_HZ = 8000


def _quiet() -> Int16Array:
    """Speech that never reaches half of full scale."""
    speech = demo_speech(RATE_HZ)[: 8 * RATE_HZ].astype(np.float64)
    quiet: Int16Array = (speech * 12_000 / np.abs(speech).max()).astype(np.int16)
    return quiet


def _loud() -> Int16Array:
    """The same, on top of so much that every segment begins above half of full scale."""
    return _quiet() // 4 + np.int16(24_000)


def test_segments_that_the_model_cannot_judge_cost_no_other(tmp_path: Path) -> None:
    broken = pytest.importorskip("tests.inference.broken")
    overrides = (
        f"inference.model={broken.poisoned(tmp_path, 'poisoned')}",
        "segment.window_s=0.5",
        "segment.hop_s=0.25",
    )
    with Service(tmp_path, overrides) as service:
        collector = Collector(service.events)
        push = Push(service.pull)
        push.send(blocks("before", _quiet(), RATE_HZ, 100))
        collector.wait_closed(["before"])
        push.send(blocks("nonsense", _loud(), RATE_HZ, 100))
        push.send(blocks("beside", _quiet(), RATE_HZ, 100))
        collector.wait_closed(["nonsense", "beside"])
        push.close()
        judged = {
            stream: [e["scores"] for e in collector.of_type("emotion") if e["stream"] == stream]
            for stream in ("before", "nonsense", "beside")
        }
        assert judged["before"]
        assert judged["beside"] == judged["before"]
        assert not judged["nonsense"]
        utterances = [e for e in collector.of_type("utterance") if e["stream"] == "nonsense"]
        assert utterances
        for utterance in utterances:
            assert utterance["segments_lost"] > 0
            assert utterance["label"] is None
        gaps = [event for event in collector.of_type("gap") if event["stream"] == "nonsense"]
        assert {gap["reason"] for gap in gaps} == {"model_error"}
        collector.close()
        assert service.daemon.stop() == 0


def test_a_model_that_hangs_starves_the_watchdog_and_not_the_other_stages(tmp_path: Path) -> None:
    broken = pytest.importorskip("tests.inference.broken")
    model = broken.hanging(tmp_path, "hanging", when_loud=True)
    path = tmp_path / "notify"
    overrides = (
        f"inference.model={model}",
        "segment.window_s=0.5",
        "segment.hop_s=0.25",
        "inference.workers=1",
        "daemon.drain_timeout_s=1.0",
    )
    environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "4000000"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(60)
        with Service(tmp_path, overrides, environ=environ) as service:
            collector = Collector(service.events)
            push = Push(service.pull)
            push.send(blocks("before", _quiet(), RATE_HZ, 100))
            collector.wait_closed(["before"])
            while b"WATCHDOG=1" not in manager.recv(4096):
                pass
            push.send(blocks("endless", _loud(), RATE_HZ, 100))
            # Speech is still found, and subscribers are told that the daemon lives.
            wait_until(
                lambda: "endless" in {e["stream"] for e in collector.of_type("speech")}, "it"
            )
            push.send(blocks("after", _quiet(), RATE_HZ, 100))
            wait_until(lambda: "after" in {e["stream"] for e in collector.of_type("speech")}, "it")
            wait_until(lambda: service.daemon.logged("stage.stuck"), "the alarm in the log", 60)
            seen = len(collector.events)
            wait_until(
                lambda: any(e["type"] == "daemon" for e in collector.events[seen:]), "a heartbeat"
            )
            # From here on the service manager is not fed, and would start another daemon.
            _drain(manager)
            manager.settimeout(2.5)
            assert not _is_fed(manager)
            push.socket.close(linger=0)
            push.close()
            collector.close()
            service.kill()


def _is_fed(manager: socket.socket) -> bool:
    """Whether the watchdog hears of the daemon before the manager loses patience."""
    try:
        while b"WATCHDOG=1" not in manager.recv(4096):
            pass
    except TimeoutError:
        return False
    return True


def _drain(manager: socket.socket) -> None:
    manager.setblocking(False)
    try:
        while True:
            manager.recv(4096)
    except BlockingIOError:
        manager.setblocking(True)
