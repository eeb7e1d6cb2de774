"""Models that answer nonsense or never answer, in a daemon with calls."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np

from serd.types import Int16Array
from tests.fakes import wait_until
from tests.faults.processes import Service
from tests.inference import broken
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
    model = broken.hanging(tmp_path, "hanging", when_loud=True)
    overrides = (
        f"inference.model={model}",
        "segment.window_s=0.5",
        "segment.hop_s=0.25",
        "inference.workers=1",
    )
    manager = _Manager(tmp_path / "notify")
    with Service(tmp_path, overrides, environ=manager.environ) as service:
        collector = Collector(service.events)
        push = Push(service.pull)
        push.send(blocks("before", _quiet(), RATE_HZ, 100))
        collector.wait_closed(["before"])
        wait_until(lambda: manager.fed, "the watchdog to be fed")
        # Speech is still found, and subscribers are told that the daemon lives.
        for name, speech in (("endless", _loud()), ("after", _quiet())):
            push.send(blocks(name, speech, RATE_HZ, 100))
            wait_until(lambda name=name: name in _speaking(collector), name)  # type: ignore[misc]  # bound at once
        wait_until(lambda: service.daemon.logged("stage.stuck"), "the alarm in the log", 60)
        # The service manager hears nothing more, and would start another daemon.
        fed, beats = manager.fed, _beats(collector)
        wait_until(lambda: _beats(collector) > beats + 8, "heartbeats, for the manager's patience")
        assert manager.fed == fed
        push.close()
        collector.close()
        service.kill()
    manager.close()


def _speaking(collector: Collector) -> set[str]:
    return {event["stream"] for event in collector.of_type("speech")}


def _beats(collector: Collector) -> int:
    return len(collector.of_type("daemon"))


class _Manager:
    """A service manager with a watchdog of 4 s; it counts how often it was fed."""

    def __init__(self, path: Path) -> None:
        self.fed = 0
        self.environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "4000000"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._path = path
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while (heard := self._socket.recv(4096)) != b"END":
            self.fed += b"WATCHDOG=1" in heard

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"END", str(self._path))
        self._thread.join(10)
        self._socket.close()
