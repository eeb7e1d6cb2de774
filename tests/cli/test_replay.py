"""``serd replay`` on folders and lists."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serd.cli import execute
from serd.protocol.events import StreamEvent, decode
from tests.speech import demo_speech

# Finding speech is not what is tested here.
QUICK = ("--set", "vad.detector=energy")


def start(*arguments: str, stdin: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "serd", "replay", *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    speech = demo_speech(8000)
    for name in ("a.wav", "day/a.flac", "day/late/b.wav"):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, speech[: 8000 * 5], 8000)
    (folder / "notes.txt").write_text("no recording")
    return folder


def closed(stdout: bytes) -> set[str]:
    events = [decode(line) for line in stdout.splitlines()]
    assert [event.cursor for event in events] == list(range(1, len(events) + 1))
    return {
        event.stream
        for event in events
        if isinstance(event, StreamEvent) and event.state == "closed"
    }


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_folder(archive: Path, tmp_path: Path, jobs: str) -> None:
    out = tmp_path / "events.jsonl"
    process = start(str(archive), "--json", "--out", str(out), "--jobs", jobs, *QUICK)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert closed(stdout) == {"a", "day/a", "day/late/b"}
    assert out.read_bytes() == stdout
    summary, passed_over = stderr.decode().splitlines()
    assert summary.startswith("3 of 3 recordings, 15.0 s of audio in ")
    assert passed_over == "files passed over that are no recordings: 1"


def test_a_list_on_standard_input_beside_files(archive: Path) -> None:
    process = start("--list", "-", str(archive / "a.wav"), "--json", *QUICK, stdin=subprocess.PIPE)
    stdout, stderr = process.communicate(f"{archive / 'day'}\n\n".encode(), timeout=120)
    assert process.returncode == 66, "a.wav and day/a.flac would both be a"
    assert b"would both be the stream 'a'" in stderr
    assert stdout == b""
    process = start("--list", "-", "--json", *QUICK, stdin=subprocess.PIPE)
    stdout, stderr = process.communicate(f"{archive / 'day'}\n\n".encode(), timeout=120)
    assert process.returncode == 0, stderr
    assert closed(stdout) == {"a", "late/b"}


def test_an_empty_list_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list").write_text("\n")
    assert execute(["replay", "--list", str(tmp_path / "list")]) == 64
    assert "Missing argument" in capsys.readouterr().err


def test_what_cannot_be_read_is_told_and_counted(archive: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_text("no audio")
    process = start(str(broken), str(archive), "--json", *QUICK)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == os.EX_NOINPUT
    assert closed(stdout) == {"a", "day/a", "day/late/b"}
    lines = stderr.decode().splitlines()
    assert lines[0].startswith(f"serd: {broken}: not a recording that can be read")
    assert lines[1].startswith("3 of 4 recordings, ")
    assert lines[-1] == "could not be read: 1"
    assert len(lines) == 4


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_it_with_what_was_done(tmp_path: Path, jobs: str) -> None:
    speech = np.tile(demo_speech(8000), 60)
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", speech, 8000)
    process = start(str(tmp_path), "--json", "--jobs", jobs)
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    # Not communicate, which does not know of what readline has read ahead.
    with process.stdout, process.stderr:
        stdout, stderr = first + process.stdout.read(), process.stderr.read()
    assert process.wait(60) == 128 + signal.SIGINT
    assert all(decode(line) for line in stdout.splitlines())
    [summary] = stderr.decode().splitlines()
    assert summary.startswith("0 of 2 recordings, ")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_reader_that_leaves_ends_all_processes_quietly(archive: Path, jobs: str) -> None:
    process = start(str(archive), "--json", "--jobs", jobs, *QUICK)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == -signal.SIGPIPE
    assert process.stderr is not None
    # Its end is read only when the last process that could write has gone.
    assert process.stderr.read() == b""
    process.stderr.close()
