"""The program that tries a model: what it answers, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serd.inference.candidate import Candidate, digest
from serd.inference.manifest import load_emotion_manifest
from tests.inference import broken


def rehearsed(manifest: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    asked = Candidate(str(manifest), "cpu", 1, (1, 2), "float32", 0.5)._asdict()
    argument = json.dumps({**asked, "parent": os.getpid(), **changes})
    return subprocess.run(
        [sys.executable, "-m", "serd.inference.rehearsal", argument],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )


def test_a_sound_model_is_answered_by_what_was_tried(tmp_path: Path) -> None:
    path = broken.sound(tmp_path, "sound")
    ended = rehearsed(path)
    assert ended.returncode == 0
    [line] = ended.stdout.splitlines()
    assert json.loads(line) == {"ok": True, "digest": digest(load_emotion_manifest(path))}
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (broken.wrong_hash, "model_sha256"),
        (broken.no_graph, "model_unreadable"),
        (broken.wrong_shape, "model_signature"),
        (broken.nothing_finite, "model_not_finite"),
    ],
)
def test_a_broken_model_is_answered_by_its_error(
    tmp_path: Path, make: broken.Maker, code: str
) -> None:
    ended = rehearsed(make(tmp_path, "broken"))
    assert ended.returncode == os.EX_DATAERR
    told = json.loads(ended.stdout)
    assert told["message"]
    assert (told["ok"], told["error"], told["code"]) == (False, "ModelError", code)


def test_a_device_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    ended = rehearsed(broken.sound(tmp_path, "sound"), device="abacus")
    assert ended.returncode == os.EX_UNAVAILABLE
    told = json.loads(ended.stdout)
    assert (told["error"], told["code"]) == ("DeviceError", "device_unknown")


def test_what_is_no_error_of_serds_is_told_as_one(tmp_path: Path) -> None:
    ended = rehearsed(broken.sound(tmp_path, "sound"), batch_sizes=[0])
    told = json.loads(ended.stdout)
    assert told["code"] == "model_failed"
    assert "batch sizes" in told["message"]


def test_a_deadly_model_ends_it_without_an_answer(tmp_path: Path) -> None:
    ended = rehearsed(broken.bottomless(tmp_path, "deadly"))
    assert ended.returncode == -signal.SIGSEGV
    assert ended.stdout == ""


def test_it_does_nothing_for_somebody_who_has_ended(tmp_path: Path) -> None:
    ended = rehearsed(broken.sound(tmp_path, "sound"), parent=os.getppid())
    assert ended.returncode == 1
    assert ended.stdout == ""
