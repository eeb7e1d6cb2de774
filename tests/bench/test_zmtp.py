"""Our end of the connection against libzmq's."""

from __future__ import annotations

import select
import socket
import threading
from typing import Any

import pytest
import zmq

from serd.bench.zmtp import LONG, MORE, Connection
from serd.errors import BindError


def frames(*parts: bytes) -> bytes:
    content = b""
    for number, part in enumerate(parts):
        more = MORE if number < len(parts) - 1 else 0
        if len(part) > 255:
            content += bytes([more | LONG]) + len(part).to_bytes(8, "big") + part
        else:
            content += bytes([more, len(part)]) + part
    return content


@pytest.mark.parametrize(("kind", "waits"), [(zmq.SUB, False), (zmq.PULL, True)])
def test_messages_arrive_whole_and_in_order(
    zmq_context: zmq.Context[zmq.Socket[bytes]], kind: int, waits: bool
) -> None:
    receiver = zmq_context.socket(kind)
    receiver.rcvtimeo = 20_000
    receiver.rcvhwm = 0
    if kind == zmq.SUB:
        receiver.subscribe(b"")
    port = receiver.bind_to_random_port("tcp://127.0.0.1")
    connection = Connection(f"tcp://127.0.0.1:{port}", waits, 1_000_000)
    sent = [[b"id", str(number).encode(), b"x" * (number % 700)] for number in range(2000)]
    for start in range(0, len(sent), 50):
        content = b"".join(frames(*parts) for parts in sent[start : start + 50])
        connection.send(memoryview(content), 50)
    assert connection.finish(20.0) == 0
    received = [receiver.recv_multipart() for _ in sent]
    connection.close()
    receiver.close()
    assert received == sent
    assert connection.dropped == 0


class Peer:
    """Shakes hands and then reads nothing until it is told to."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        # Small, so that a test need not fill megabytes.
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.received = 0
        self._reading = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        accepted, _ = self._server.accept()
        with accepted:
            accepted.sendall(
                b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
            )
            accepted.sendall(b"\x04\x06\x05READY")
            self._reading.wait(20)
            while content := accepted.recv(1 << 20):
                self.received += len(content)

    def read(self) -> None:
        self._reading.set()

    def close(self) -> None:
        self._reading.set()
        self._thread.join()
        self._server.close()


def test_what_a_slow_peer_does_not_take_is_dropped_whole_and_counted() -> None:
    peer = Peer()
    connection = Connection(peer.endpoint, False, capacity=10)
    content = memoryview(frames(b"m" * 200_000))
    for _ in range(200):
        connection.send(content, 5)
    assert connection.dropped > 0
    peer.read()
    assert connection.finish(20.0) == 0
    connection.close()
    peer.close()
    handshake = 64 + 2 + 30
    messages, rest = divmod(peer.received, len(content))
    assert 0 < rest <= handshake
    assert messages * 5 + connection.dropped == 1000


def test_a_peer_that_waits_makes_the_caller_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer()
    wait = select.select

    def read_once_somebody_waits(*arguments: Any) -> Any:
        peer.read()
        return wait(*arguments)

    monkeypatch.setattr(select, "select", read_once_somebody_waits)
    connection = Connection(peer.endpoint, True, capacity=10)
    content = memoryview(frames(b"m" * 200_000))
    for _ in range(200):
        connection.send(content, 5)
    assert connection.finish(20.0) == 0
    connection.close()
    peer.close()
    assert connection.dropped == 0
    assert connection.waited_ns > 0
    assert peer.received // len(content) == 200


def test_somebody_who_speaks_something_else_is_told() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        accepted, _ = server.accept()
        accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n".ljust(64))
        accepted.close()

    thread = threading.Thread(target=answer)
    thread.start()
    endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(BindError, match="does not speak ZMTP 3"):
        Connection(endpoint, False, 1)
    thread.join()
    server.close()
    with pytest.raises(BindError, match="cannot connect"):
        Connection(endpoint, False, 1)
