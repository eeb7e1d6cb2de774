"""Taps and subscribers in other languages against a real daemon."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from serd.audio import pcm
from serd.client import Missed, Restarted, Subscriber
from serd.protocol.events import DaemonEvent, Event, StreamEvent, encode
from serd.types import Encoding, Int16Array
from tests.daemon import RunningDaemon, running_daemon

TIMEOUT_S = 120


@pytest.fixture(scope="module")
def recording() -> Int16Array:
    """Speech, 8 kHz mono."""
    with resources.as_file(resources.files("serd.demo") / "two-voices.flac") as path:
        samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 8000
    return np.asarray(samples, np.int16)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


def check_story(events: list[dict[str, Any]], samples: int) -> None:
    """What a recording with several lines of speech must bring, complete and in order."""
    assert [event["seq"] for event in events] == list(range(len(events)))
    kinds = [event.get("state") or event["type"] for event in events]
    assert kinds[0] == "opened"
    assert kinds[-1] == "closed"
    assert kinds.count("onset") == kinds.count("offset") == kinds.count("utterance") > 0
    assert kinds.count("emotion") > 3
    assert "gap" not in kinds
    assert events[-1]["at_sample"] == samples


def test_node_feeds_the_daemon_and_reads_its_events(
    daemon: RunningDaemon, node_tap: list[str], recording: Int16Array
) -> None:
    done = subprocess.run(
        [*node_tap, daemon.tap, daemon.events, daemon.replay, "from-node"],
        input=recording.tobytes(),
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_S,
        check=True,
    )
    *events, replayed = [json.loads(line) for line in done.stdout.splitlines()]
    check_story(events, len(recording))
    assert {event["call_id"] for event in events} == {"node-1"}
    assert {event["role"] for event in events} == {"customer"}
    assert {event["labels"]["tool"] for event in events} == {"node"}
    utterances = [event["cursor"] for event in events if event["type"] == "utterance"]
    assert replayed == {"replayed": utterances}


def test_c_feeds_the_daemon(daemon: RunningDaemon, c_sender: Path, recording: Int16Array) -> None:
    audio = pcm.encode(recording.reshape(-1, 1), Encoding.MULAW)
    with Subscriber(
        daemon.events, replay=daemon.replay, after=0, timeout_s=TIMEOUT_S
    ) as subscriber:
        subprocess.run([c_sender, daemon.tap], input=audio, timeout=TIMEOUT_S, check=True)
        events: list[Event] = []
        for item in subscriber:
            assert not isinstance(item, Missed | Restarted)
            if isinstance(item, DaemonEvent) or item.stream != "call-43":
                continue
            events.append(item)
            if isinstance(item, StreamEvent) and item.state == "closed":
                break
    check_story([json.loads(encode(event)) for event in events], len(recording))
