"""The control socket: who may ask, what is refused, and what is left behind."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from serd.errors import BindError, InputError, ModelError
from serd.runtime.control import MAX_LINE_BYTES, Control, ControlError, Peer, ask, control_path


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(tmp_path / "control.sock")
    made.register("echo", lambda request, peer: {"heard": request.get("word"), "uid": peer.uid})
    made.start()
    yield made
    made.stop()
    assert not made.path.exists()


def _raw(path: Path, data: bytes) -> list[dict[str, object]]:
    """Send bytes, then the end; every answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while more := connection.recv(1 << 16):
            received += more
    return [json.loads(line) for line in received.splitlines()]


def test_only_the_user_may_open_it_and_is_known(control: Control) -> None:
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
    answer = ask(control.path, {"command": "echo", "word": "héllo"})
    assert answer == {"ok": True, "heard": "héllo", "uid": os.getuid()}


def test_several_requests_on_one_connection(control: Control) -> None:
    line = b'{"command":"echo","word":1}\n'
    assert [answer["heard"] for answer in _raw(control.path, 3 * line)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\n", "control_syntax"),
        (b"[1]\n", "control_syntax"),
        (b"[" * 50_000 + b"\n", "control_syntax"),
        (b"{}\n", "control_command"),
        (b'{"command":["echo"]}\n', "control_command"),
        (b" " * (MAX_LINE_BYTES + 1), "control_too_long"),
    ],
)
def test_what_is_no_request_is_refused_and_the_next_is_served(
    control: Control, data: bytes, code: str
) -> None:
    [answer] = _raw(control.path, data)
    assert (answer["ok"], answer["code"]) == (False, code)
    assert ask(control.path, {"command": "echo"})["ok"]


def test_an_unfinished_line_is_not_served(control: Control) -> None:
    assert _raw(control.path, b'{"command":"echo"}') == []


def test_errors_are_told_by_code_and_faults_without_their_text(control: Control) -> None:
    def refuse(_request: object, _peer: Peer) -> dict[str, object]:
        raise ModelError("model_sha256", "another file")

    def fail(_request: object, _peer: Peer) -> dict[str, object]:
        raise KeyError("/secret/path")

    control.register("refuse", refuse)
    control.register("fail", fail)
    with pytest.raises(ControlError, match="another file") as refused:
        ask(control.path, {"command": "refuse"})
    assert refused.value.code == "model_sha256"
    with pytest.raises(ControlError) as failed:
        ask(control.path, {"command": "fail"})
    assert (failed.value.code, failed.value.message) == ("internal", "KeyError")


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    control = Control(path)
    control.register("echo", lambda _request, _peer: {})
    control.start()
    assert ask(path, {"command": "echo"}) == {"ok": True}
    control.stop()


def test_a_second_daemon_does_not_take_the_socket_away(control: Control) -> None:
    with pytest.raises(BindError) as refused:
        Control(control.path)
    assert refused.value.code == "control_in_use"
    assert ask(control.path, {"command": "echo"})["ok"]


@pytest.mark.parametrize("name", ["missing/control.sock", "x" * 120])
def test_a_path_that_cannot_be_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BindError, match=r"daemon\.control") as refused:
        Control(tmp_path / name)
    assert refused.value.code == "control_path"


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(BindError):
        Control(path)
    assert path.read_text() == "precious"


def test_no_daemon_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is the daemon running"):
        ask(tmp_path / "control.sock", {"command": "models"})


def test_where_the_socket_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert control_path("auto") is None
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/serd:/run/other")
    assert control_path("auto") == Path("/run/serd/control.sock")
    assert control_path("") is None
    assert control_path("/tmp/x.sock") == Path("/tmp/x.sock")
