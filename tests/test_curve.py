from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import zmq

from serd.curve import Connection, CurveKeys, Door, Link, is_key
from serd.errors import BindError, ConfigError


def _written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_secret_key_is_read_and_tells_its_public_one(tmp_path: Path) -> None:
    keys = CurveKeys.generate()
    assert CurveKeys.read(_written(tmp_path / "key", keys.secret + "\n")) == keys
    assert keys.secret not in repr(keys)
    assert keys.secret not in repr(Link(keys, keys.public))


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o606, 0o644])
def test_a_key_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = _written(tmp_path / "key", CurveKeys.generate().secret, mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}") as error:
        CurveKeys.read(path)
    assert error.value.code == "key_exposed"


def test_a_key_that_a_group_may_read_is_a_service_managers(tmp_path: Path) -> None:
    keys = CurveKeys.generate()
    assert CurveKeys.read(_written(tmp_path / "key", keys.secret, 0o440)) == keys


@pytest.mark.parametrize("text", ["", "short", "x" * 39 + " ", "\N{SNOWMAN}" * 40, "~" * 40])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    assert not is_key(text)
    with pytest.raises(ConfigError, match="is not one line of 40 characters") as error:
        CurveKeys.read(_written(tmp_path / "key", text))
    assert error.value.code == "key_invalid"


def test_a_missing_key_says_how_one_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="serd keygen") as error:
        CurveKeys.read(tmp_path / "none")
    assert error.value.code == "key_unreadable"


def test_a_link_with_something_else_for_a_key(zmq_context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with (
        zmq_context.socket(zmq.PUSH) as push,
        pytest.raises(BindError, match="40 characters of Z85"),
    ):
        Link(CurveKeys.generate(), "none").reach(push)


def test_in_the_clear_a_peer_cannot_choose_its_name(
    zmq_context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    with zmq_context.socket(zmq.PULL) as pull, zmq_context.socket(zmq.PUSH) as push:
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        push.setsockopt(zmq.METADATA, b"X-User-Id:admin")
        push.connect(f"tcp://127.0.0.1:{port}")
        push.send(b"")
        frame = pull.recv(copy=False)
        assert frame.get("X-User-Id") == "admin"
        assert Door().who(frame) == "127.0.0.1"


def test_a_connection_is_not_the_next_of_its_number() -> None:
    one, other = socket.socketpair()
    connection = Connection.of(one.fileno())
    assert connection is not None
    states = [connection.alive]
    assert connection.address() == "local"
    third = socket.socket()
    os.dup2(third.fileno(), one.fileno())
    states.append(connection.alive)
    assert states == [True, False]
    assert not connection.shut()
    for each in (one, other, third):
        each.close()


def test_what_is_shut_is_at_its_end_for_the_peer() -> None:
    one, other = socket.socketpair()
    connection = Connection.of(one.fileno())
    assert connection is not None
    assert connection.shut()
    assert other.recv(1) == b""
    one.close()
    other.close()


def test_a_regular_file_is_never_shut(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        connection = Connection.of(file.fileno())
        assert connection is not None
        assert not connection.shut()
        assert stat.S_ISREG(os.fstat(file.fileno()).st_mode)
