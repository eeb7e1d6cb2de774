from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile
import zmq

from serd.cli import cli, execute
from serd.commands import check_config
from serd.protocol.events import Event, decode, encode, topic
from serd.sources import microphone
from serd.sources.devices import DeviceInfo
from tests.cli.test_render import EMOTION, UTTERANCE
from tests.fakes import wait_until

COMMANDS = sorted(cli.commands)


def start(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "serd", *arguments], stdout=stdout, stderr=subprocess.PIPE
    )


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_shows_how_it_is_used(
        self, command: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert execute([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert re.search(rf"Examples?:\n +serd {command}", text)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_option_is_explained(self, command: str) -> None:
        for parameter in cli.commands[command].params:
            if isinstance(parameter, click.Option):
                assert parameter.help, parameter.name

    def test_the_first_page_lists_all_commands(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert execute(["--help"]) == 0
        text = capsys.readouterr().out
        for command in COMMANDS:
            assert re.search(rf"^  {command} +[A-Z].*\.$", text, re.MULTILINE)


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "status", "words"),
        [
            (["listn"], 64, "No such command 'listn'"),
            (["replay"], 64, "Missing argument"),
            (["replay", "nothing.wav"], 66, "nothing.wav"),
            (["send", "nothing.wav"], 66, "nothing.wav: there is no such file"),
            (["send", "a.wav", "--speed", "fast"], 64, "neither a factor"),
            (["send", "a.wav", "--label", "queue"], 64, "expected NAME=TEXT"),
            (["run", "--config", "nothing.toml"], 66, "nothing.toml: No such file"),
            (["run", "--set", "vad.treads=1"], 78, "did you mean threads?"),
            (["run", "--set", "inference.model=nothing"], 65, "nothing"),
            (["check-config", "nothing.toml"], 66, "nothing.toml"),
            (["listen", "nonsense"], 71, "nonsense"),
        ],
    )
    def test_get_a_sentence_and_a_status(
        self,
        arguments: list[str],
        status: int,
        words: str,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert execute(arguments) == status
        captured = capsys.readouterr()
        assert words in captured.err
        assert "Traceback" not in captured.err

    def test_all_problems_of_a_configuration_are_listed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "serd.toml"
        path.write_text("[segment]\nhop_s = 9\nwindw_s = 2\n[loging]\n")
        assert execute(["check-config", str(path)]) == 78
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == f"serd: {path}: 3 problems"
        assert sorted(line.split(":")[0].strip() for line in lines[1:]) == [
            "loging",
            "segment.hop_s",
            "segment.windw_s",
        ]

    def test_ours_get_a_line_and_a_hint(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken() -> str:
            raise RuntimeError("two\nlines")

        monkeypatch.setattr(check_config, "defaults_text", broken)
        assert execute(["check-config", "--defaults"]) == 70
        text = capsys.readouterr().err
        assert "internal error: RuntimeError: two lines" in text
        assert "--debug" in text
        assert "Traceback" not in text
        assert execute(["--debug", "check-config", "--defaults"]) == 70
        assert "Traceback" in capsys.readouterr().err


class TestCheckConfig:
    def test_the_printed_defaults_are_in_order(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert execute(["check-config", "--defaults"]) == 0
        path = tmp_path / "serd.toml"
        path.write_text(capsys.readouterr().out)
        assert execute(["check-config", str(path)]) == 0
        assert "in order" in capsys.readouterr().out

    def test_without_a_file_it_explains_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert execute(["check-config"]) == 64
        assert "Usage:" in capsys.readouterr().out


class TestModels:
    def test_figures_and_licences(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert execute(["models"]) == 0
        text = capsys.readouterr().out
        assert re.search(r"^serd-crnn-\d+@sha256:", text, re.MULTILINE)
        assert "CC-BY-NC-SA-4.0" in text
        assert "telephone-mulaw-8k" in text

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert execute(["models", "--json"]) == 0
        manifests = json.loads(capsys.readouterr().out)
        assert {manifest["kind"] for manifest in manifests} == {"emotion", "vad"}


class TestDevices:
    def test_what_there_is(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        device = DeviceInfo(3, "USB Audio", "ALSA", 2, 48000, True)
        monkeypatch.setattr(microphone, "list_devices", lambda: [device])
        assert execute(["devices"]) == 0
        assert re.search(r"3 +2 +48000 Hz +USB Audio, ALSA \(default\)", capsys.readouterr().out)
        assert execute(["devices", "--json"]) == 0
        (entry,) = json.loads(capsys.readouterr().out)
        assert entry["name"] == "USB Audio"

    def test_what_there_is_not(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(microphone, "list_devices", list)
        assert execute(["devices"]) == 0
        assert "No device" in capsys.readouterr().out


class TestReplay:
    def test_json_is_all_that_goes_to_standard_output(
        self, repository: Path, tmp_path: Path
    ) -> None:
        recording = str(repository / "serd/demo/two-voices.flac")
        out = tmp_path / "events.jsonl"
        process = start("replay", recording, "--json", "--out", str(out))
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        events = [decode(line) for line in stdout.splitlines()]
        assert [event.cursor for event in events] == list(range(1, len(events) + 1))
        assert {type(event).__name__ for event in events} >= {
            "StreamEvent",
            "SpeechEvent",
            "EmotionEvent",
            "UtteranceEvent",
        }
        assert out.read_bytes() == stdout
        assert b"times real time" in stderr

    def test_lines_for_people(self, repository: Path) -> None:
        process = start("replay", str(repository / "serd/demo/two-voices.flac"))
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        text = stdout.decode()
        assert text.splitlines()[0].split() == ["time", "stream", "event", "latency"]
        assert "onset of utterance 0" in text
        assert "\x1b" not in text

    def test_a_reader_that_leaves_ends_it_quietly(self, repository: Path) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        recording = str(repository / "serd/demo/two-voices.flac")
        process = start("replay", recording, "--json", stdout=writer)
        os.close(writer)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGPIPE
        assert stderr == b""

    def test_interrupting_it_is_no_error(self, repository: Path, tmp_path: Path) -> None:
        samples, rate = soundfile.read(repository / "serd/demo/two-voices.flac", dtype="int16")
        soundfile.write(tmp_path / "long.wav", np.tile(samples, 60), rate)
        process = start("replay", str(tmp_path / "long.wav"), "--json")
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr.strip()) == (128 + signal.SIGINT, b"")

    def test_a_place_that_cannot_be_written(
        self, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recording = str(repository / "serd/demo/two-voices.flac")
        assert execute(["replay", recording, "--out", str(tmp_path / "no" / "x.jsonl")]) == 66
        assert "No such file" in capsys.readouterr().err


class FakeDaemon:
    """Publishes events to whoever subscribes."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._cursor = 0
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"

    def wait_for_subscriber(self) -> bytes:
        wait_until(lambda: self._socket.poll(0), "a subscription")
        return self._socket.recv()

    def publish(self, event: Event) -> None:
        self._cursor += 1
        event.cursor = self._cursor
        event.id = f"{'0' * 16}-{self._cursor}"
        self._socket.send_multipart([topic(event), struct.pack(">Q", self._cursor), encode(event)])


@pytest.fixture
def daemon(zmq_context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[FakeDaemon]:
    with zmq_context.socket(zmq.XPUB) as socket:
        yield FakeDaemon(socket)


def test_output_that_nobody_reads_ends_any_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start("check-config", "--defaults", stdout=writer)
    os.close(writer)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (128 + signal.SIGPIPE, b"")


class TestListen:
    def test_json_lines(self, daemon: FakeDaemon) -> None:
        process = start("listen", daemon.endpoint, "--json", "--count", "2")
        daemon.wait_for_subscriber()
        daemon.publish(EMOTION)
        daemon.publish(UTTERANCE)
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (0, b"")
        assert [type(decode(line)).__name__ for line in stdout.splitlines()] == [
            "EmotionEvent",
            "UtteranceEvent",
        ]

    def test_only_the_topics_asked_for(self, daemon: FakeDaemon) -> None:
        process = start("listen", daemon.endpoint, "--topic", "utterance.", "--count", "1")
        assert daemon.wait_for_subscriber() == b"\x01utterance."
        daemon.publish(EMOTION)
        daemon.publish(UTTERANCE)
        stdout, _ = process.communicate(timeout=60)
        heading, row = stdout.decode().splitlines()
        assert "latency" in heading
        assert "utterance" in row

    def test_missed_events_are_told_beside_the_json(self, daemon: FakeDaemon) -> None:
        process = start("listen", daemon.endpoint, "--json", "--count", "2")
        daemon.wait_for_subscriber()
        daemon.publish(EMOTION)
        daemon._cursor += 3
        daemon.publish(UTTERANCE)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0
        assert len(stdout.splitlines()) == 2
        assert b"missed 3 events" in stderr

    def test_a_reader_that_leaves_ends_it_quietly(self, daemon: FakeDaemon) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        process = start("listen", daemon.endpoint, "--json", stdout=writer)
        os.close(writer)
        daemon.wait_for_subscriber()
        daemon.publish(EMOTION)
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (128 + signal.SIGPIPE, b"")

    def test_interrupting_it_is_no_error(self, daemon: FakeDaemon) -> None:
        process = start("listen", daemon.endpoint)
        daemon.wait_for_subscriber()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr.strip()) == (128 + signal.SIGINT, b"")


@pytest.mark.slow
def test_the_demonstration_shows_everything() -> None:
    process = start("demo")
    stdout, stderr = process.communicate(timeout=240)
    text = stdout.decode()
    assert process.returncode == 0, text + stderr.decode()
    for words in ("opened", "onset", "offset", "emotion", "utterance", "closed", "stopped"):
        assert words in text
    assert re.search(r"\d+ emotion events; latency \d+ ms", text)


def test_a_daemon_drains_when_told_to_stop() -> None:
    ports = ("sources.0.bind", "publish.bind", "publish.replay_bind")
    settings = [part for key in ports for part in ("--set", f"{key}=tcp://127.0.0.1:*")]
    process = start("run", *settings, "--set", "logging.format=json")
    assert process.stderr is not None
    ready = json.loads(process.stderr.readline())
    while ready["event"] != "ready":
        ready = json.loads(process.stderr.readline())
    assert ready["provider"] == "CPUExecutionProvider"
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (0, b"")
    assert json.loads(stderr.splitlines()[-1])["event"] == "stopped"
