"""Just enough of ZeroMQ's wire protocol to send: ZMTP 3.0 with the NULL mechanism, over TCP.

The load generator shares the processor with what it measures, so it must be cheap. Through
libzmq a message of three parts costs it 3.4 µs by `send_multipart`, 0.6 µs by the bare method of
the binding, and about as much again in libzmq's thread. As ZMTP is a plain sequence of bytes, all
messages of a moment can be laid out by numpy and written in one call: 0.1 to 0.2 µs a message.

https://rfc.zeromq.org/spec/23/
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque

from serd.errors import BindError

MORE = 1
LONG = 2
_COMMAND = 4
_GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_TIMEOUT_S = 10.0


def ready_command(socket_type: str) -> bytes:
    """The frame that ends the handshake: READY, with the type of our socket."""
    value = socket_type.encode()
    name = b"Socket-Type"
    body = b"\x05READY" + bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value
    return bytes([_COMMAND, len(body)]) + body


class Connection:
    """One connection to a bound ZeroMQ socket, for sending whole messages.

    Parameters
    ----------
    endpoint
        ``tcp://HOST:PORT``.
    waits
        As PUSH: when the peer does not take them, messages wait, and so does the caller once
        `capacity` of them do. Otherwise as PUB: what is beyond `capacity` is dropped and counted.
    capacity
        Most messages that are held back here; the kernel's buffers come on top.

    Raises
    ------
    BindError
        Nobody is there, or it does not speak ZMTP 3.
    """

    def __init__(self, endpoint: str, waits: bool, capacity: int) -> None:
        self.dropped = 0
        self.waited_ns = 0
        self._waits = waits
        self._capacity = capacity
        self._held: deque[tuple[memoryview, int]] = deque()
        self._held_messages = 0
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        try:
            self._socket = socket.create_connection((host, int(port)), _TIMEOUT_S)
        except (OSError, ValueError) as error:
            raise BindError("connect_failed", f"cannot connect to {endpoint}: {error}") from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._shake_hands("PUSH" if waits else "PUB")
        except (OSError, ValueError) as error:
            self._socket.close()
            raise BindError("connect_failed", f"cannot connect to {endpoint}: {error}") from error
        self._socket.setblocking(False)

    def _shake_hands(self, kind: str) -> None:
        self._socket.sendall(_GREETING)
        greeting = self._receive(len(_GREETING))
        if greeting[0] != 0xFF or greeting[10] < 3:
            raise ValueError("the peer does not speak ZMTP 3")
        self._socket.sendall(ready_command(kind))
        flags, size = self._receive(2)
        command = self._receive(size)
        if flags != _COMMAND or not command.startswith(b"\x05READY"):
            raise ValueError(f"the peer refuses: {command[:80]!r}")

    def _receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            more = self._socket.recv(size - len(received))
            if not more:
                raise ValueError("the peer has closed the connection")
            received += more
        return received

    def send(self, content: memoryview, messages: int) -> None:
        """Send the bytes of so many whole messages; they must not change afterwards."""
        if self._held:
            self._send_held()
            if self._held_messages + messages > self._capacity:
                if not self._waits:
                    self.dropped += messages
                    return
                began = time.monotonic_ns()
                self.finish(float("inf"))
                self.waited_ns += time.monotonic_ns() - began
        if not self._held:
            sent = self._try(content)
            if sent == len(content):
                return
            content = content[sent:]
        self._held.append((content, messages))
        self._held_messages += messages

    def _try(self, content: memoryview) -> int:
        try:
            return self._socket.send(content)
        except BlockingIOError:
            return 0

    def _send_held(self) -> None:
        while self._held:
            content, messages = self._held[0]
            sent = self._try(content)
            if sent < len(content):
                self._held[0] = (content[sent:], messages)
                return
            self._held.popleft()
            self._held_messages -= messages

    def finish(self, timeout_s: float) -> int:
        """Send what is held back, for so long at most; return how many messages are left."""
        deadline = time.monotonic() + timeout_s
        while self._held and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._socket], [], min(left, 1.0))
            self._send_held()
        return self._held_messages

    def close(self) -> None:
        """Close without losing what the peer has not read yet."""
        try:
            # Unread bytes (the peer's subscriptions) would make the kernel reset the connection.
            while self._socket.recv(65536):
                pass
        except OSError:
            pass
        self._socket.close()
