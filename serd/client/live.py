"""The subscriber's live side: the socket that events come by, and whether it was disconnected."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from serd.client.connect import connect
from serd.curve import Link


class LiveSocket:
    """A SUB socket, not yet connected. One thread.

    Parameters
    ----------
    context
        ZeroMQ context.

    Attributes
    ----------
    receive
        The socket's own ``recv_multipart``.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._socket = context.socket(zmq.SUB)
        self._monitor: zmq.Socket[bytes] | None = None
        self._was_connected = False
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self.receive = self._socket.recv_multipart

    def connect(
        self,
        endpoint: str,
        topics: Sequence[str],
        receive_hwm: int,
        watched: bool,
        curve: Link | None,
    ) -> None:
        """Subscribe and connect.

        Parameters
        ----------
        endpoint
            Where the daemon publishes.
        topics
            Prefixes to subscribe to.
        receive_hwm
            Events queued while nobody reads.
        watched
            Whether `has_reconnected` will be asked.
        curve
            Keys, where the daemon uses CURVE.

        Raises
        ------
        BindError
            The endpoint cannot be understood.
        """
        self._socket.setsockopt(zmq.RCVHWM, receive_hwm)
        for prefix in topics:
            self._socket.setsockopt(zmq.SUBSCRIBE, prefix.encode())
        if watched:
            self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            self._poller.register(self._monitor, zmq.POLLIN)
        connect(self._socket, endpoint, curve)

    def close(self) -> None:
        """Release the socket. Doing it twice does nothing."""
        if self._monitor is not None and not self._monitor.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
        self._socket.close(linger=0)

    def wait(self, timeout_ms: int | None) -> None:
        """Wait until there may be an event or a reconnection; None waits for ever."""
        self._poller.poll(timeout_ms)

    def has_reconnected(self) -> bool:
        """Whether it has connected anew since this was asked last; the first time is no such."""
        again = False
        while self._monitor is not None and self._monitor.poll(0):
            self._monitor.recv_multipart()
            again, self._was_connected = again or self._was_connected, True
        return again
