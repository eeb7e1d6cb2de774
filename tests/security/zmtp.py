"""A peer that speaks just enough ZMTP 3.0 (https://rfc.zeromq.org/spec/23/) to misbehave."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


@contextmanager
def connected(endpoint: str, kind: bytes) -> Iterator[socket.socket]:
    """A connection to a ``tcp://`` endpoint as a socket of some type, its handshake done."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(_GREETING)
        _read(raw, len(_GREETING))
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
        raw.sendall(b"\x04" + bytes([len(ready)]) + ready)
        _flags, size = _read(raw, 2)
        _read(raw, size)
        yield raw


def long_frame(size: int) -> bytes:
    """The head of a frame of so many bytes, which need not follow."""
    return b"\x02" + struct.pack(">Q", size)


def is_cut_off(raw: socket.socket) -> bool:
    """Wait until the other side ends the connection."""
    try:
        while raw.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def _read(raw: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += raw.recv(size - len(data))
    return data
