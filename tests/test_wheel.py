"""The wheel works on its own: installed in a new environment, run from another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from serd.protocol.events import EmotionEvent, decode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, repository],
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("serd-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of an environment that holds ``serd[cpu]`` from the wheel alone."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    subprocess.run(
        [programs / "python", "-m", "pip", "install", "--quiet", f"{wheel}[cpu]"], check=True
    )
    return programs


def run(program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Nothing of the environment may lead back to the repository.
    environment = {"PATH": os.defpath, "HOME": str(cwd), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_it_carries_what_the_program_needs(wheel: Path, repository: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("serd", "trainer"):
        for path in (repository / folder).rglob("*"):
            inside = path.relative_to(repository).parts
            made = any(part == "__pycache__" or part.startswith(".") for part in inside)
            if path.is_file() and not made:
                assert path.relative_to(repository).as_posix() in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "serd",
        "trainer",
    }
    for needed in (
        "serd/py.typed",
        "serd/config/defaults.toml",
        "serd/demo/two-voices.flac",
        "serd/models/serd-crnn-8k.onnx",
        "serd/models/serd-crnn.json",
        "serd/models/serd-crnn.md",
        "serd/models/serd-crnn.onnx",
        "serd/models/serd-vad.json",
        "serd/models/serd-vad.md",
        "serd/models/serd-vad.onnx",
        "serd/models/silero-vad.json",
        "serd/protocol/README.md",
        "serd/protocol/schema/emotion.json",
        "trainer/backbones/serd-encoder.pt",
        "trainer/compact/serd-encoder.toml",
    ):
        assert needed in names


def test_replay_from_another_folder(installed: Path, repository: Path, tmp_path: Path) -> None:
    shutil.copy(repository / "serd/demo/two-voices.flac", tmp_path / "talk.flac")
    done = run(installed / "serd", "replay", "talk.flac", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    events = [decode(line.encode()) for line in done.stdout.splitlines()]
    emotions = [event for event in events if isinstance(event, EmotionEvent)]
    assert len(emotions) > 5
    assert {event.stream for event in emotions} == {"talk"}
    version = json.loads((repository / "serd/models/serd-crnn.json").read_text())["version"]
    assert {event.model.split("@")[0] for event in emotions} == {f"serd-crnn-{version}"}


def test_the_models_are_the_shipped_ones(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "serd", "models", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {manifest["name"] for manifest in json.loads(done.stdout)}
    assert names == {"serd-crnn", "serd-vad", "silero-vad"}


def test_the_trainer_says_what_it_lacks(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "serd-trainer", "train", "serd-crnn", cwd=tmp_path)
    assert done.returncode != 0
    assert "pip install 'serd[train]'" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
