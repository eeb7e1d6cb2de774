"""What must hold for the repository as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


def pyproject(repository: Path) -> dict[str, dict[str, object]]:
    table: dict[str, dict[str, object]] = tomllib.loads(
        (repository / "pyproject.toml").read_text("utf-8")
    )
    return table


def test_dependencies_point_one_way(repository: Path) -> None:
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_daemon_loads_nothing_of_the_trainer() -> None:
    script = (
        "import sys, serd.cli, serd.runtime.daemon\n"
        "print(*{name.split('.')[0] for name in sys.modules} & {'torch', 'librosa', 'trainer'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_the_oldest_packages_are_the_lower_bounds(repository: Path) -> None:
    project = pyproject(repository)["project"]
    requirements = project["dependencies"]
    assert isinstance(requirements, list)
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    bounds = {}
    for requirement in requirements + extras["cpu"]:
        name, bound = requirement.split(">=")
        bounds[name] = [*map(int, bound.split("."))]
    pins = {}
    for line in (repository / "tests/constraints-oldest.txt").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            name, pin = line.split("==")
            pins[name] = [*map(int, pin.split("."))]
    assert pins.keys() == bounds.keys()
    for name, bound in bounds.items():
        assert pins[name][: len(bound)] == bound, name
        assert not any(pins[name][len(bound) :]), name


def test_the_runtimes_exclude_each_other(repository: Path) -> None:
    extras = pyproject(repository)["project"]["optional-dependencies"]
    assert isinstance(extras, dict)
    names = {
        extra: {re.split(r"[\[>=<]", requirement)[0] for requirement in requirements}
        for extra, requirements in extras.items()
    }
    runtimes = {"onnxruntime", "onnxruntime-gpu"}
    assert names["cpu"] & runtimes == {"onnxruntime"}
    assert names["gpu"] & runtimes == {"onnxruntime-gpu"}
    for extra in names.keys() - {"cpu", "gpu"}:
        assert not names[extra] & runtimes, extra


def test_no_file_is_a_recording_of_a_person(repository: Path) -> None:
    recordings = [
        path.relative_to(repository)
        for path in repository.rglob("*")
        if path.suffix.lower() in {".wav", ".flac", ".ogg", ".opus", ".mp3"}
        and not any(part.startswith(".venv") for part in path.relative_to(repository).parts)
    ]
    assert recordings == [Path("serd/demo/two-voices.flac")]
