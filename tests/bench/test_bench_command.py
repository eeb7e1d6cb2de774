"""The command, with a real daemon and a real load generator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from serd.bench.material import read_speech
from serd.cli import execute
from serd.errors import InputError
from tests.fakes import wait_until
from tests.speech import demo_recording

SHORT = ("--seconds", "3", "--warm-up", "2", "--p99-ms", "60000")


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    status = execute(["bench", *SHORT, "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def test_everything_that_must_come_comes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plot = tmp_path / "run.svg"
    status, found = bench(capsys, "--streams", "4", "--plot", str(plot), "--taps", "2")
    # Whether the machine was fast enough is not this test's question, whether it is told is.
    assert status == (0 if found["valid"] else os.EX_TEMPFAIL)
    assert found["problems"] == []
    assert found["events"]["expected"] == found["events"]["received"] > 0
    assert found["events"]["missing"] == found["events"]["unexpected"] == 0
    assert found["messages"]["sent"] == found["messages"]["received"] > 4 * 150
    assert found["events"]["by_type"]["utterance"] == found["events"]["utterances_expected"]
    assert found["latency_ms"]["p50"] > 0
    assert found["cpu"]["daemon"] > 0
    assert found["memory"]["all_streams_kib"] > 10_000
    assert found["gaps"] == {}
    ElementTree.fromstring(plot.read_text())


def test_a_bad_line_to_a_daemon_that_makes_taps_wait(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = bench(
        capsys,
        *("--streams", "3", "--socket", "PULL", "--encoding", "s16le", "--jitter-ms", "30"),
        *("--loss", "0.05", "--suppress-silence", "--recording", str(demo_recording())),
    )
    assert found["messages"]["withheld"] > 0
    assert found["messages"]["suppressed"] > 0
    assert found["messages"]["lost"] == 0
    assert found["events"]["missing"] is None
    assert found["gaps"]["lost"]["messages"] == found["messages"]["withheld"]


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def connections(pid: int) -> int:
    """Established connections of a process; it may have inherited sockets of other kinds."""
    sockets = set()
    for file in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(str(file.readlink()))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[3] == "01" and f"socket:[{line[9]}]" in sockets for line in lines)


def playing(pid: int) -> bool:
    """Whether a bench has a daemon, and a generator that is connected to it."""
    found = children(pid)
    return len(found) == 2 and connections(found[1]) >= 2


def test_ctrl_c_ends_everything() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "serd", "bench", "--streams", "2", "--seconds", "40"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: playing(process.pid), "a bench at work", timeout_s=60)
        started = children(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT
    finally:
        process.kill()
        process.wait()
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--find-max", "--curve", "1,2"], 64, "exclude each other"),
        (["--curve", "1,many"], 64, "expected numbers of streams"),
        (["--recording", "nothing.wav"], 66, "nothing.wav: no such file"),
        (["--plot", "nowhere/plot.svg"], 66, "there is no such folder"),
        (["--set", "segment.hop_s=9"], 78, "segment.hop_s"),
        (["--set", "inference.model=nothing"], 70, "nothing"),
    ],
)
def test_mistakes_get_a_sentence(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["bench", "--seconds", "1", "--warm-up", "0.5", *arguments]) == status
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_a_recording_without_speech_is_told(tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros(8000, np.int16), 8000)
    with pytest.raises(InputError, match=r"silence\.wav: no speech"):
        read_speech([path], 8000)
