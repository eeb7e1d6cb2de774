"""What a daemon with open calls leaves behind: an audit log, and no audio in any file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from serd.protocol.tap import Metadata
from serd.protocol.writer import TapWriter
from serd.runtime.chain import verify
from serd.types import Encoding, Int16Array, Role
from tests.daemon import running_daemon
from tests.speech import demo_speech
from tests.taps import Collector, Push

RATE_HZ = 8000


def traces(audio: Int16Array) -> list[bytes]:
    """Short runs of samples in every form in which the daemon has them."""
    blocks = audio[: len(audio) // 16 * 16].reshape(-1, 16)
    loud = np.argsort(np.abs(blocks.astype(np.int64)).sum(axis=1))[-200:]
    runs = [blocks[at] for at in loud]
    return [run.tobytes() for run in runs] + [
        (run.astype(np.float32) / 32768).tobytes() for run in runs
    ]


def holding(files: list[Path], wanted: list[bytes]) -> list[Path]:
    found = []
    for file in files:
        content = file.read_bytes()
        if any(trace in content for trace in wanted):
            found.append(file)
    return found


def files_of(folder: Path, pid: int) -> list[Path]:
    """Every file in the daemon's folders, and every one that it has open for writing."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
            info = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text()
        except OSError:
            continue
        flags = int(info.split("flags:")[1].split()[0], 8)
        # Pipes, sockets and the like are no files.
        kept = target.startswith(("/", "memfd:")) and not target.startswith("/dev/")
        if kept and flags & os.O_ACCMODE != os.O_RDONLY and descriptor.is_file():
            files.append(descriptor)
    return files


def test_the_search_finds_audio(tmp_path: Path) -> None:
    audio = demo_speech(RATE_HZ)
    (tmp_path / "clean").write_bytes(bytes(10_000))
    (tmp_path / "dirty").write_bytes(b"x" * 11 + audio.tobytes())
    assert holding(sorted(tmp_path.iterdir()), traces(audio)) == [tmp_path / "dirty"]


def test_an_open_call_leaves_no_audio_in_any_file(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("state", "logs", "run", "tmp", "home")}
    for folder in folders.values():
        folder.mkdir()
    environ = {
        "STATE_DIRECTORY": str(folders["state"]),
        "LOGS_DIRECTORY": str(folders["logs"]),
        "RUNTIME_DIRECTORY": str(folders["run"]),
        "TMPDIR": str(folders["tmp"]),
        "HOME": str(folders["home"]),
    }
    audio = demo_speech(RATE_HZ)
    with running_daemon(tmp_path, environ=environ) as daemon:
        collector = Collector(daemon.events)
        push = Push(daemon.tap)
        call = TapWriter("call-1", RATE_HZ, Encoding.S16LE, 1)
        refused = TapWriter("call-2", RATE_HZ, Encoding.S16LE, 1)
        push.send([call.start(Metadata(roles=(Role.CUSTOMER,)))])
        push.send([refused.start(Metadata(roles=(Role.AGENT,)))])
        for at in range(0, len(audio), 160):
            push.send([call.audio(audio[at : at + 160]), refused.audio(audio[at : at + 160])])
        # The call goes on: what the daemon has heard of it is in its memory now.
        collector.wait_for("speech", "onset")
        pid = daemon.process.pid
        searched = files_of(tmp_path, pid)
        assert folders["logs"] / "audit.jsonl" in searched
        assert holding(searched, traces(audio)) == []
        limits = Path(f"/proc/{pid}/limits").read_text()
        [core] = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core.split()[4:6] == ["0", "0"]
        push.send([call.end()])
        collector.wait_closed(["call-1"])
        push.close()
        assert daemon.stop() == 0
        collector.close()
        assert holding(files_of(tmp_path, os.getpid()), traces(audio)) == []
    path = folders["logs"] / "audit.jsonl"
    assert verify([path]).breaks == []
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records[0]["event"] == "start"
    assert len(records[0]["config_sha256"]) == len(records[0]["model_sha256"]) == 64
    refusals = [record for record in records if record["event"] == "stream.refused"]
    assert [(record["stream"], record["reason"]) for record in refusals] == [
        ("call-2", "role_agent")
    ]
    subscribed = [record for record in records if record["event"] == "subscribed"]
    assert ("", "127.0.0.1") in [(record["topic"], record["peer"]) for record in subscribed]
    assert records[-1]["event"] == "stop"


PROGRAM = """
import ctypes, resource
from serd.runtime.secrecy import forbid_core_dumps
libc = ctypes.CDLL(None)
before = libc.prctl(3, 0, 0, 0, 0)
forbid_core_dumps()
print(before, libc.prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_a_crash_leaves_no_core_dump() -> None:
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["1", "0", "0", "0"]
