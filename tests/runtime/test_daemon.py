"""The whole daemon as a process: every kind of event, start, drain and stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import serd.protocol
from serd.audio import pcm
from serd.protocol.tap import Flag, Metadata
from serd.protocol.writer import TapWriter
from serd.types import Encoding, Int16Array, Role
from tests.daemon import Json, RunningDaemon, running_daemon
from tests.fakes import wait_until
from tests.sources.intake_bench import Tap
from tests.speech import demo_speech
from tests.taps import Collector, Push, blocks

RATE_HZ = 8000
SCHEMAS = Path(serd.protocol.__file__).parent / "schema"


@pytest.fixture(scope="module")
def speech() -> Int16Array:
    return demo_speech(RATE_HZ)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    overrides = ["daemon.heartbeat_s=0.2", "streams.idle_timeout_s=1.0", "streams.max_streams=12"]
    with running_daemon(tmp_path_factory.mktemp("daemon"), overrides=overrides) as running:
        yield running


@pytest.fixture
def collector(daemon: RunningDaemon) -> Iterator[Collector]:
    collecting = Collector(daemon.events)
    yield collecting
    collecting.close()


@pytest.fixture
def push(daemon: RunningDaemon) -> Iterator[Push]:
    pushing = Push(daemon.tap)
    yield pushing
    pushing.close()


def _of(collector: Collector, stream: str) -> list[Json]:
    return [event for event in collector.events if event.get("stream") == stream]


def _said(collector: Collector, stream: str) -> list[str]:
    """Type and state of every event of a stream."""
    return [
        f"{event['type']}.{event['state']}" if "state" in event else event["type"]
        for event in _of(collector, stream)
    ]


def test_a_call_from_start_to_end(
    daemon: RunningDaemon, collector: Collector, push: Push, speech: Int16Array
) -> None:
    metadata = Metadata(call_id="c-9", roles=(Role.CUSTOMER,), labels={"queue": "sales"})
    push.send(blocks("whole", speech, RATE_HZ, 20, Encoding.MULAW, metadata))
    collector.wait_closed(["whole"])
    said = _said(collector, "whole")
    assert said[0] == "stream.opened"
    assert said[1] == "speech.onset"
    assert said[-1] == "stream.closed"
    assert said.count("speech.onset") == said.count("speech.offset") == said.count("utterance")
    assert said.count("emotion") > 4
    for kind in ("stream", "speech", "emotion", "utterance"):
        schema = json.loads((SCHEMAS / f"{kind}.json").read_text())
        for event in _of(collector, "whole"):
            if event["type"] == kind:
                jsonschema.validate(event, schema)
    events = _of(collector, "whole")
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert all(event["call_id"] == "c-9" for event in events)
    assert all(event["role"] == "customer" for event in events)
    assert all(event["labels"] == {"queue": "sales"} for event in events)
    assert len({event["id"] for event in collector.events}) == len(collector.events)
    assert collector.gapless
    for event in events:
        if event["type"] == "emotion":
            assert sum(event["scores"].values()) == pytest.approx(1, abs=1e-6)
            assert event["end_sample"] - event["start_sample"] <= 3 * RATE_HZ
            assert event["start_s"] == pytest.approx(event["start_sample"] / RATE_HZ, abs=1e-6)
            assert event["latency_ms"]["total"] > 0


def test_segments_cover_their_utterance_at_every_hop(
    collector: Collector, push: Push, speech: Int16Array
) -> None:
    push.send(blocks("hops", speech, RATE_HZ, 20))
    collector.wait_closed(["hops"])
    events = _of(collector, "hops")
    for utterance in (event for event in events if event["type"] == "utterance"):
        segments = [
            event
            for event in events
            if event["type"] == "emotion" and event["utterance"] == utterance["utterance"]
        ]
        assert [segment["index"] for segment in segments] == list(range(utterance["segments"]))
        assert segments[0]["start_sample"] == utterance["start_sample"]
        assert segments[-1]["end_sample"] == utterance["end_sample"]
        for number, segment in enumerate(segments[:-1]):
            assert segment["start_sample"] == utterance["start_sample"] + number * RATE_HZ
            assert segment["end_sample"] - segment["start_sample"] == 3 * RATE_HZ


def test_a_late_joiner_is_told_where_its_stream_stands(
    daemon: RunningDaemon, collector: Collector, push: Push, speech: Int16Array
) -> None:
    tap = TapWriter("standing", RATE_HZ, Encoding.S16LE, 1)
    push.send([list(tap.start()), list(tap.audio(speech[: 6 * RATE_HZ].reshape(-1, 1)))])
    wait_until(lambda: "utterance" in _said(collector, "standing"), "an utterance")
    before = _of(collector, "standing")
    late = [Collector(daemon.events, f"{kind}.standing") for kind in ("utterance", "emotion")]
    for kind, joined in zip(("utterance", "emotion"), late, strict=True):
        wait_until(lambda joined=joined: joined.events, f"the last {kind}")  # type: ignore[misc]
        assert joined.events[0] == [event for event in before if event["type"] == kind][-1]
    # Nobody else hears it twice.
    repeated = [event for event in _of(collector, "standing") if event["type"] != "stream"]
    assert len({event["cursor"] for event in repeated}) == len(repeated)
    # Not before: libzmq sends a last value to all if another connection ends at that moment.
    for joined in late:
        joined.close()
    push.send([list(tap.end())])


def test_pause_is_honoured_at_once(collector: Collector, push: Push, speech: Int16Array) -> None:
    tap = Tap("private")
    push.send([list(tap.audio(speech[: 3 * RATE_HZ]))])
    push.send([list(tap.plain(Flag.PAUSE))])
    push.send([list(tap.audio(speech[3 * RATE_HZ : 20 * RATE_HZ]))])
    push.send([list(tap.plain(Flag.RESUME))])
    push.send([list(tap.audio(speech[20 * RATE_HZ :], flags=Flag.END))])
    collector.wait_closed(["private"])
    events = _of(collector, "private")
    paused = next(e for e in events if e["type"] == "stream" and e["state"] == "paused")
    resumed = next(e for e in events if e["type"] == "stream" and e["state"] == "resumed")
    assert paused["at_sample"] == 3 * RATE_HZ
    assert resumed["at_sample"] == 20 * RATE_HZ
    first = next(e for e in events if e["type"] == "utterance")
    assert first["reason"] == "paused"
    for event in events:
        if event["type"] in {"emotion", "utterance"}:
            inside = event["end_sample"] > 3 * RATE_HZ and event["start_sample"] < 20 * RATE_HZ
            assert not inside, event


def test_an_agent_is_refused_and_the_customer_heard(
    collector: Collector, push: Push, speech: Int16Array
) -> None:
    tap = TapWriter("desk", RATE_HZ, Encoding.ALAW, 2)
    push.send([list(tap.start(Metadata(roles=(Role.CUSTOMER, Role.AGENT))))])
    both = np.stack([speech, speech], axis=1)
    for start in range(0, len(both), 800):
        push.send([list(tap.audio(both[start : start + 800]))])
    push.send([list(tap.end())])
    collector.wait_closed(["desk/0"])
    assert _said(collector, "desk/1") == ["stream.refused"]
    assert _of(collector, "desk/1")[0]["reason"] == "role_agent"
    assert "emotion" in _said(collector, "desk/0")


def test_loss_is_told_and_its_place_is_kept(
    collector: Collector, push: Push, speech: Int16Array
) -> None:
    messages = blocks("lossy", speech, RATE_HZ, 20)
    lost = list(range(100, 110)) + list(range(700, 760))
    push.send(message for number, message in enumerate(messages) if number not in lost)
    collector.wait_closed(["lossy"])
    gaps = [event for event in _of(collector, "lossy") if event["type"] == "gap"]
    schema = json.loads((SCHEMAS / "gap.json").read_text())
    for gap in gaps:
        jsonschema.validate(gap, schema)
    # The first message of the tap is its start, without samples.
    assert [(gap["start_sample"], gap["end_sample"], gap["messages"]) for gap in gaps] == [
        (99 * 160, 109 * 160, 10),
        (699 * 160, 759 * 160, 60),
    ]
    assert {gap["reason"] for gap in gaps} == {"lost"}
    hit = [
        event
        for event in _of(collector, "lossy")
        if event["type"] == "emotion"
        and event["start_sample"] <= 99 * 160
        and event["end_sample"] >= 109 * 160
    ]
    assert hit
    assert all(event["lost_ms"] == 200.0 for event in hit)
    assert "gap" in {e["reason"] for e in _of(collector, "lossy") if e["type"] == "utterance"}


def test_a_silent_stream_is_closed_with_its_reason(
    collector: Collector, push: Push, speech: Int16Array
) -> None:
    push.send(blocks("fading", speech[: 3 * RATE_HZ], RATE_HZ, 20)[:-1])
    collector.wait_closed(["fading"])
    events = _of(collector, "fading")
    assert events[-1]["reason"] == "timeout"
    assert [e["reason"] for e in events if e["type"] == "utterance"] == ["timeout"]


def test_streams_beyond_the_limit_are_refused_with_an_event(
    collector: Collector, push: Push
) -> None:
    silence = np.zeros(160, np.int16)
    for number in range(14):
        push.send([list(Tap(f"many-{number:02}").audio(silence))])

    def refused() -> list[str]:
        return sorted(
            event["stream"]
            for event in collector.of_type("stream")
            if event["state"] == "refused" and event["reason"] == "max_streams"
        )

    wait_until(lambda: len(refused()) == 2, "two refusals")
    collector.wait_closed(f"many-{number:02}" for number in range(14) if number < 12)


def test_heartbeats_tell_the_last_cursor_and_the_counts(
    daemon: RunningDaemon, collector: Collector
) -> None:
    beat = collector.wait_for("daemon", "heartbeat")
    jsonschema.validate(beat, json.loads((SCHEMAS / "daemon.json").read_text()))
    assert beat["last_cursor"] == beat["cursor"] - 1
    assert beat["provider"] == "CPUExecutionProvider"
    assert beat["model"] == daemon.wait_ready()["model"]
    assert beat["counts"]["source.zmq-0.received"] >= 0


def test_a_stop_in_mid_sentence_finishes_the_sentence(tmp_path: Path, speech: Int16Array) -> None:
    with running_daemon(tmp_path) as stopping:
        collector = Collector(stopping.events)
        push = Push(stopping.tap)
        tap = TapWriter("cut", RATE_HZ, Encoding.S16LE, 1)
        push.send([list(tap.start()), list(tap.audio(speech[: 4 * RATE_HZ].reshape(-1, 1)))])
        wait_until(lambda: "speech.onset" in _said(collector, "cut"), "the onset")
        assert stopping.stop() == 0
        stopped = collector.wait_for("daemon", "stopped")
        said = _said(collector, "cut")
        assert said[-4:] == ["emotion", "speech.offset", "utterance", "stream.closed"]
        assert _of(collector, "cut")[-1]["reason"] == "draining"
        assert collector.events[-1] == stopped
        assert stopping.logged("stopped")[0]["drained"] is True
        push.close()
        collector.close()


def test_a_second_daemon_on_the_same_port_says_so(tmp_path: Path, daemon: RunningDaemon) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "serd", "run"),
            *("--set", f"publish.bind={daemon.events}"),
            *("--set", "sources.0.bind=tcp://127.0.0.1:*"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == os.EX_OSERR
    assert daemon.events in done.stderr
    assert "Traceback" not in done.stderr


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(30)
        environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "200000"}
        with running_daemon(tmp_path, environ=environ) as notifying:
            heard = b""
            while b"READY=1" not in heard or b"WATCHDOG=1" not in heard:
                heard += manager.recv(4096) + b"\n"
            notifying.process.send_signal(signal.SIGINT)
            while b"STOPPING=1" not in heard:
                heard += manager.recv(4096) + b"\n"
            assert notifying.process.wait(30) == 0
    assert b"STATUS=0 streams, serd-crnn" in heard


def test_a_wide_band_float_tap_is_heard_too(collector: Collector, push: Push) -> None:
    wide = demo_speech(48_000)
    payload = pcm.decode(pcm.encode(wide.reshape(-1, 1), Encoding.F32LE), Encoding.F32LE, 1)
    push.send(blocks("wide", payload[:, 0], 48_000, 20, Encoding.F32LE))
    collector.wait_closed(["wide"])
    closed = _of(collector, "wide")[-1]
    assert closed["at_sample"] == len(wide)
    assert closed["sample_rate_hz"] == 48_000
    assert "utterance" in _said(collector, "wide")
