"""Connecting a subscriber's sockets."""

from __future__ import annotations

import zmq

from serd.curve import Link
from serd.errors import BindError


def connect(socket: zmq.Socket[bytes], endpoint: str, curve: Link | None) -> None:
    """Connect, encrypted if there are keys.

    Raises
    ------
    BindError
        The endpoint cannot be understood.
    """
    if curve is not None:
        curve.reach(socket)
    socket.setsockopt(zmq.IPV6, int("[" in endpoint))
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise BindError(
            "bad_endpoint", f"cannot connect to {endpoint}: {zmq.strerror(error.errno or 0)}"
        ) from None
