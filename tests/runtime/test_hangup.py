"""SIGHUP to a running daemon: what can change does, the rest is named, and streams go on."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.daemon import RunningDaemon, running_daemon
from tests.fakes import wait_until
from tests.speech import demo_speech
from tests.taps import Collector, Push, blocks

RATE_HZ = 8000


def _hang_up(daemon: RunningDaemon, event: str, count: int) -> dict[str, object]:
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(daemon.logged(event)) == count, event)
    return daemon.logged(event)[-1]


def test_a_hangup_reloads_under_an_open_stream(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon:
        [path] = tmp_path.glob("serd-*.toml")
        text = path.read_text()
        collector, push = Collector(daemon.events), Push(daemon.tap)
        messages = blocks("call", demo_speech(RATE_HZ)[: 10 * RATE_HZ], RATE_HZ, 20)
        half = len(messages) // 2
        push.send(messages[:half])
        collector.wait_for("stream", "opened")

        path.write_text(text + "\n[daemon]\nheartbeat_s = 0.3\n[segment]\nhop_s = 0.5\n")
        reload = _hang_up(daemon, "reload", 1)
        assert reload["applied"] == ["daemon.heartbeat_s"]
        assert reload["needs_restart"] == ["segment.hop_s"]

        path.write_text(text + "\n[segment]\nhop_s = -1\n")
        assert "hop_s" in str(_hang_up(daemon, "reload.refused", 1)["why"])

        path.write_text(text)
        reload = _hang_up(daemon, "reload", 2)
        assert (reload["applied"], reload["needs_restart"]) == (["daemon.heartbeat_s"], [])

        push.send(messages[half:])
        collector.wait_closed(["call"])
        states = [event["state"] for event in collector.of_type("stream")]
        assert states == ["opened", "closed"]
        assert not collector.of_type("gap")
        collector.close()
        push.close()
        assert daemon.stop() == 0
