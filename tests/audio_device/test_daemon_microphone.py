"""A daemon that listens to microphones: what is played into them comes out as events."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serd.channel import Waker
from serd.sources.microphone import MicrophoneOptions, MicrophoneSource
from serd.types import BoolArray
from tests.audio_device.sound_server import SoundServer, alsa_configuration
from tests.daemon import running_daemon
from tests.fakes import wait_until
from tests.sources.fake_intake import FakeIntake
from tests.speech import Json, demo_speech
from tests.taps import Collector

pytestmark = [
    pytest.mark.audio_device,
    pytest.mark.skipif("SERD_TEST_AUDIO" not in os.environ, reason="run by `make test-audio`"),
]

RATE_HZ = 16_000
TIMEOUT_S = 60.0
# Where a recording begins within the detector's frames is chance here, and it decides whether a
# faint syllable or a short pause counts as speech.
OVERLAP = 0.85


@pytest.fixture
def servers() -> Iterator[list[SoundServer]]:
    """Two microphones, plugged in."""
    folder = Path(tempfile.mkdtemp(prefix="serd-audio-"))
    made = [SoundServer(folder, "serd_one"), SoundServer(folder, "serd_two")]
    try:
        for server in made:
            server.plug()
        yield made
    finally:
        for server in made:
            server.pull()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic conversation that ends in silence, so that its last utterance ends as well."""
    path = tmp_path_factory.mktemp("audio") / "conversation.wav"
    silence = np.zeros(2 * RATE_HZ, np.int16)
    soundfile.write(path, np.concatenate([silence, demo_speech(RATE_HZ), silence]), RATE_HZ)
    return path


@pytest.fixture(scope="module")
def from_the_file(recording: Path) -> list[Json]:
    """The events of the same recording without any sound device."""
    command = [sys.executable, "-m", "serd", "replay", "--json", str(recording)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def microphone(server: SoundServer) -> str:
    return (
        "[[sources]]\n"
        'type = "microphone"\n'
        f'name = "{server.name}"\n'
        f'device = "{server.name}"\n'
        'roles = ["self"]\n'
        "retry_s = 0.2\n"
    )


def of(
    collector: Collector, server: SoundServer, kind: str | None = None, state: str | None = None
) -> list[Json]:
    """Events of a microphone's stream, of all kinds and states or of one."""
    return [
        event
        for event in list(collector.events)
        if event.get("stream") == server.name
        and kind in (None, event["type"])
        and state in (None, event.get("state"))
    ]


def speech_frames(events: list[Json]) -> BoolArray:
    """Which hundredths of a second lie in an utterance, counted from the first utterance."""
    spans = [(e["start_s"], e["end_s"]) for e in events if e["type"] == "utterance"]
    frames = np.zeros(10_000, np.bool_)
    for start_s, end_s in spans:
        frames[round(100 * (start_s - spans[0][0])) : round(100 * (end_s - spans[0][0]))] = True
    return frames


def check_heard(events: list[Json], reference: list[Json]) -> None:
    """Speech lies in time as it does in the file, from wherever it began, and was judged."""
    heard, expected = speech_frames(events), speech_frames(reference)
    assert (heard & expected).sum() > OVERLAP * (heard | expected).sum() > 0
    utterances = [event for event in events if event["type"] == "utterance"]
    assert [event["lost_ms"] for event in utterances] == [0] * len(utterances)
    assert [event["segments_lost"] for event in utterances] == [0] * len(utterances)
    for state in ("onset", "offset"):
        told = [e for e in events if e["type"] == "speech" and e["state"] == state]
        assert [e["utterance"] for e in told] == [e["utterance"] for e in utterances]
    judged = [e["utterance"] for e in events if e["type"] == "emotion"]
    assert sorted(set(judged)) == [e["utterance"] for e in utterances]
    assert not any(event["type"] == "gap" for event in events)


def test_samples_arrive_unchanged(
    servers: list[SoundServer],
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(alsa_configuration(tmp_path, servers)))
    waker, intake = Waker(), FakeIntake()
    source = MicrophoneSource(MicrophoneOptions("m", "m", device=servers[0].name))
    source.open(waker)

    def hear() -> int:
        waker.wait(0.1)
        source.service(time.monotonic_ns(), intake)
        return source.counts()["blocks"]

    try:
        wait_until(hear, "the first block", TIMEOUT_S)
        playing = servers[0].play(recording)
        wait_until(lambda: hear() and playing.poll() is not None, "the recording", TIMEOUT_S)
        assert playing.returncode == 0
        until = source.counts()["blocks"] + 50
        wait_until(lambda: hear() >= until, "what is still on its way", TIMEOUT_S)
    finally:
        source.close()
        waker.close()
    [tap] = intake.taps
    assert all(entry == ("push", 320) for entry in tap.log)
    heard = np.trim_zeros(tap.samples[:, 0])
    played = np.trim_zeros(soundfile.read(recording, dtype="int16")[0])
    assert np.array_equal(heard, played)


def test_what_is_played_comes_out_as_events(
    servers: list[SoundServer], recording: Path, from_the_file: list[Json], tmp_path: Path
) -> None:
    server = servers[0]
    environ = {"ALSA_CONFIG_PATH": str(alsa_configuration(tmp_path, servers))}
    with running_daemon(tmp_path, microphone(server), environ=environ) as daemon:
        collector = Collector(daemon.events)
        wait_until(lambda: daemon.logged("microphone.up"), "the microphone", TIMEOUT_S)
        assert server.play(recording).wait(TIMEOUT_S) == 0
        assert daemon.stop() == 0
        wait_until(lambda: of(collector, server, "stream", "closed"), "the end")
        collector.close()
    [opened] = of(collector, server, "stream", "opened")
    assert (opened["sample_rate_hz"], opened["role"]) == (RATE_HZ, "self")
    check_heard(of(collector, server), from_the_file)


def test_an_unplugged_microphone_comes_back_and_the_other_goes_on(
    servers: list[SoundServer], recording: Path, from_the_file: list[Json], tmp_path: Path
) -> None:
    lost, kept = servers
    environ = {"ALSA_CONFIG_PATH": str(alsa_configuration(tmp_path, servers))}
    config = microphone(lost) + microphone(kept)
    with running_daemon(tmp_path, config, environ=environ) as daemon:
        collector = Collector(daemon.events)
        wait_until(lambda: len(daemon.logged("microphone.up")) == 2, "two microphones", TIMEOUT_S)
        playing, cut_short = kept.play(recording), lost.play(recording)
        wait_until(lambda: of(collector, lost, "speech", "onset"), "speech", TIMEOUT_S)
        lost.pull()
        assert cut_short.wait(TIMEOUT_S) != 0
        wait_until(lambda: of(collector, lost, "stream", "closed"), "the loss to be told")
        wait_until(lambda: daemon.logged("microphone.down"), "attempts to open it")
        lost.plug()
        wait_until(lambda: len(daemon.logged("microphone.up")) == 3, "it to come back")
        again = lost.play(recording)
        assert playing.wait(TIMEOUT_S) == 0
        assert again.wait(TIMEOUT_S) == 0
        assert daemon.stop() == 0
        wait_until(lambda: len(of(collector, lost, "stream", "closed")) == 2, "the end")
        collector.close()
    [closed, _] = of(collector, lost, "stream", "closed")
    assert closed["reason"] == "device_lost"
    [_, opened] = of(collector, lost, "stream", "opened")
    check_heard([e for e in of(collector, lost) if e["cursor"] > opened["cursor"]], from_the_file)
    # The other one heard everything, in one stream.
    check_heard(of(collector, kept), from_the_file)
    assert len(of(collector, kept, "stream", "opened")) == 1
