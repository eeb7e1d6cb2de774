"""The publisher's sockets: their options, and binding them."""

from __future__ import annotations

import errno
from typing import Final

import zmq

from serd.errors import BindError
from serd.protocol.replay import MAX_LIMIT
from serd.sinks.subscribers import MAX_NOTICE_BYTES

_MAX_REQUEST_BYTES: Final = 1 << 13
# Messages of one peer that wait to be read: what a flood can hold of this process's memory.
_RECEIVE_HWM: Final = 200
_KEEPALIVE_IDLE_S: Final = 60
_KEEPALIVE_INTERVAL_S: Final = 15
_KEEPALIVE_PROBES: Final = 4

_BIND_CODES = {
    errno.EADDRINUSE: "address_in_use",
    errno.EADDRNOTAVAIL: "address_not_available",
    errno.ENODEV: "address_not_available",
    errno.EACCES: "permission_denied",
}


def prepare(events: zmq.Socket[bytes], replay: zmq.Socket[bytes], send_hwm: int) -> None:
    """Set the options of the XPUB and the ROUTER socket, before they are bound."""
    events.setsockopt(zmq.SNDHWM, send_hwm)
    events.setsockopt(zmq.XPUB_MANUAL, 1)
    events.setsockopt(zmq.XPUB_NODROP, 1)
    replay.setsockopt(zmq.SNDHWM, 10 * MAX_LIMIT)
    replay.setsockopt(zmq.ROUTER_MANDATORY, 1)
    events.setsockopt(zmq.MAXMSGSIZE, MAX_NOTICE_BYTES)
    replay.setsockopt(zmq.MAXMSGSIZE, _MAX_REQUEST_BYTES)
    for socket in (events, replay):
        socket.setsockopt(zmq.RCVHWM, _RECEIVE_HWM)
        # A vanished peer must free its queue. ZMTP heartbeats would also cut off a subscriber
        # that is merely slow: with its queue full it reads no pings.
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_IDLE_S)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _KEEPALIVE_INTERVAL_S)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _KEEPALIVE_PROBES)


def bind(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind; return the endpoint with its real port.

    Raises
    ------
    BindError
        It cannot be bound.
    """
    socket.setsockopt(zmq.IPV6, int("[" in endpoint))
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        number = error.errno or 0
        reason = zmq.strerror(number)
        raise BindError(
            _BIND_CODES.get(number, "bind_failed"), f"cannot bind {endpoint}: {reason}"
        ) from None
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)
