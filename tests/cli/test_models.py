"""``serd models`` against a control socket."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from serd.cli import cli
from serd.errors import ModelError
from serd.runtime.control import Control, Peer


class FakeDaemon:
    """Answers as a daemon would, and keeps what it was asked."""

    def __init__(self, path: Path) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.control = Control(path)
        for command in ("models", "use", "shadow"):
            self.control.register(command, self._answer)
        self.control.start()

    def _answer(self, request: Mapping[str, Any], _peer: Peer) -> Mapping[str, Any]:
        self.asked.append(request)
        if request.get("model") == "broken":
            raise ModelError("model_sha256", "broken.json: file.sha256: is another")
        if request["command"] == "models":
            model = {"identity": "first-3@sha256:1", "provider": "CPUExecutionProvider"}
            return {"model": model, "shadow": {**model, "identity": "second-1@sha256:2"}}
        name = request["model"]
        return {"model" if request["command"] == "use" else "shadow": name and f"{name}-1@sha256:2"}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    made = FakeDaemon(tmp_path / "control.sock")
    yield made
    made.control.stop()


def _run(daemon: FakeDaemon, *arguments: str) -> tuple[int, str]:
    options = ["--control", str(daemon.control.path)]
    done = CliRunner().invoke(cli, ["models", *arguments, *options])
    return done.exit_code, done.output


def test_the_list_begins_with_what_a_daemon_uses(daemon: FakeDaemon) -> None:
    status, text = _run(daemon)
    assert status == 0
    # The log of the daemon, which is in this process, goes the same way.
    first, second, *rest = (line for line in text.splitlines() if "control.request" not in line)
    assert first.split() == ["in", "use", "first-3@sha256:1", "on", "CPUExecutionProvider"]
    assert second.split() == ["on", "trial", "second-1@sha256:2"]
    assert any(line.startswith("serd-crnn-") for line in rest)


@pytest.mark.parametrize(
    ("arguments", "asked", "said"),
    [
        (["use", "next"], {"command": "use", "model": "next"}, "model in use: next-1@sha256:2"),
        (["use", "next", "--shadow"], {"command": "shadow", "model": "next"}, "shadow model: next"),
        (["use", "--no-shadow"], {"command": "shadow", "model": None}, "no shadow model"),
    ],
)
def test_use_asks_the_daemon(
    daemon: FakeDaemon, arguments: list[str], asked: Mapping[str, Any], said: str
) -> None:
    status, text = _run(daemon, *arguments)
    assert (status, daemon.asked) == (0, [asked])
    assert said in text


def test_a_path_is_made_whole_for_the_daemon(
    daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "next.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert _run(daemon, "use", "next.json")[0] == 0
    assert daemon.asked[0]["model"] == str(tmp_path / "next.json")


def test_the_daemons_refusal_is_told(daemon: FakeDaemon) -> None:
    status, text = _run(daemon, "use", "broken")
    assert status == os.EX_UNAVAILABLE
    assert "broken.json: file.sha256: is another" in text


@pytest.mark.parametrize("arguments", [["use"], ["use", "a", "--no-shadow"]])
def test_what_makes_no_sense_is_a_mistake_of_usage(
    daemon: FakeDaemon, arguments: list[str]
) -> None:
    assert _run(daemon, *arguments)[0] != 0
    assert daemon.asked == []
