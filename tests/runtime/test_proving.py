"""A model is tried by another process, whatever becomes of that."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serd.channel import Waker
from serd.errors import DeviceError, ModelError
from serd.inference.candidate import Candidate, digest
from serd.inference.manifest import load_emotion_manifest
from serd.runtime.patience import Patience
from serd.runtime.proving import REHEARSAL, prove
from tests.inference import broken
from tests.runtime.swapping import alive

HOUR_S = 3600.0
CANDIDATE = Candidate("next.json", "cpu", 1, (1,), "float32", 0.5)


@pytest.fixture
def ended() -> Iterator[Waker]:
    waker = Waker()
    yield waker
    waker.close()


def program(code: str) -> list[str]:
    no_core_dump = "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
    imports = "import json, os, signal, sys, time\n"
    return [sys.executable, "-c", no_core_dump + imports + code]


def patience(ended: Waker, timeout_s: float = HOUR_S) -> Patience:
    return Patience("next", timeout_s, ended, lambda: None)


def test_it_is_tried_with_the_interpreter_and_the_options_of_serd(
    tmp_path: Path, ended: Waker
) -> None:
    path = broken.sound(tmp_path, "sound")
    candidate = CANDIDATE._replace(manifest=str(path))
    assert prove("next", candidate, patience(ended)) == digest(load_emotion_manifest(path))
    told = program('print(json.dumps({"ok": True, "digest": sys.argv[1]}))')
    asked = json.loads(prove("next", candidate, patience(ended), told))
    assert asked.pop("parent") == os.getpid()
    assert Candidate(**{**asked, "batch_sizes": tuple(asked["batch_sizes"])}) == candidate
    assert REHEARSAL[0] == sys.executable


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGILL", "SIGRTMIN"])
def test_the_signal_that_ended_it_is_named(ended: Waker, name: str) -> None:
    kill = program(f"signal.signal(signal.{name}, signal.SIG_DFL)\n" * (name != "SIGKILL"))
    kill[-1] += f"os.kill(os.getpid(), signal.{name})\ntime.sleep(60)"
    with pytest.raises(ModelError, match=rf"'next': .* died by {name} \(.+goes on") as refused:
        prove("next", CANDIDATE, patience(ended), kill)
    assert refused.value.code == f"model_died_{name.lower()}"
    assert ("memory" in refused.value.message) == (name == "SIGKILL")


@pytest.mark.parametrize("kind", [ModelError, DeviceError])
def test_a_refusal_is_raised_here_as_it_was_there(
    ended: Waker, kind: type[ModelError | DeviceError]
) -> None:
    refuses = program(
        f'print(json.dumps({{"ok": False, "error": "{kind.__name__}", "code": "why", '
        '"message": "because"}))\nsys.exit(65)'
    )
    with pytest.raises(kind, match="because") as refused:
        prove("next", CANDIDATE, patience(ended), refuses)
    assert refused.value.code == "why"


@pytest.mark.parametrize(
    "code",
    [
        "",
        "sys.exit(3)",
        "print(json.dumps([]))",
        "print(json.dumps({'ok': True}))",
        "print(json.dumps({'ok': 1, 'digest': ''}))",
        "print(json.dumps({'ok': False}))",
        "print(json.dumps({'error': 'SystemExit', 'code': '', 'message': ''}))",
        "print(json.dumps({'error': [], 'code': '', 'message': ''}))",
        "print(json.dumps({'ok': True, 'digest': ''}))\nsys.exit(1)",
        "print('{' * 60_000)",
        "sys.stdout.buffer.write(bytes(range(256)))",
        "while True: os.write(1, b'x' * 60_000)",
    ],
)
def test_an_answer_that_is_none_is_a_refusal(ended: Waker, code: str) -> None:
    with pytest.raises(ModelError, match="no answer") as refused:
        prove("next", CANDIDATE, patience(ended), program(code))
    assert refused.value.code == "model_died"


def test_one_that_hangs_is_killed_when_the_time_is_up(tmp_path: Path, ended: Waker) -> None:
    number = tmp_path / "pid"
    # It has a pid to tell before it hangs, and heeds no signal that it may ignore.
    hangs = program(
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(number)!r}, 'w').write(str(os.getpid()))\ntime.sleep(3600)"
    )
    with pytest.raises(ModelError) as refused:
        prove("next", CANDIDATE, patience(ended, 2.0), hangs)
    assert refused.value.code == "model_timeout"
    assert not alive(int(number.read_text()))


def test_one_that_hangs_is_killed_when_serd_ends(ended: Waker) -> None:
    ended.wake()
    with pytest.raises(ModelError) as refused:
        prove("next", CANDIDATE, patience(ended), program("time.sleep(3600)"))
    assert refused.value.code == "model_stopping"


def test_without_a_process_nothing_is_tried(ended: Waker) -> None:
    with pytest.raises(ModelError, match="No such file") as refused:
        prove("next", CANDIDATE, patience(ended), ["/nowhere/python"])
    assert refused.value.code == "model_not_tried"


def test_nothing_stays_open(ended: Waker) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for code in ("sys.exit(1)", "os.abort()"):
        with pytest.raises(ModelError):
            prove("next", CANDIDATE, patience(ended), program(code))
    with pytest.raises(ModelError):
        prove("next", CANDIDATE, patience(ended), ["/nowhere/python"])
    assert descriptors() == before


def test_it_is_the_first_to_go_and_the_last_to_be_served(ended: Waker) -> None:
    states = program(
        "import serd.inference.rehearsal as rehearsal\n"
        "rehearsal._be_expendable(os.getppid())\n"
        "told = open('/proc/self/oom_score_adj').read().strip(), os.nice(0)\n"
        "print(json.dumps({'ok': True, 'digest': str(told)}))"
    )
    assert prove("next", CANDIDATE, patience(ended), states) == f"('1000', {os.nice(0) + 5})"
