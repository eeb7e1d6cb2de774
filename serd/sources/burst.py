"""Many tap messages, taken from a socket in one go.

To ask the socket after each part whether its message goes on, as `recv_multipart` does, costs
more than to receive: 2.7 µs a message, against 1.7 µs where each part comes as a frame that knows.
Not to ask would be cheaper still, 0.6 µs, but a peer that sends two parts, or four, could then
shift the messages of all others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import zmq

_PARTS = 3

Payload: TypeAlias = "bytes | zmq.Frame"


@dataclass(slots=True)
class Burst:
    """Messages of three parts in the order of their arrival, part by part.

    Payloads are left where libzmq has them until somebody asks.
    """

    ids: list[bytes] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.payloads)

    def parts(self, number: int) -> tuple[bytes, bytes, bytes]:
        """One message."""
        payload = self.payloads[number]
        return (
            self.ids[number],
            self.headers[number],
            payload if isinstance(payload, bytes) else payload.bytes,
        )

    def drop(self, count: int) -> None:
        """Forget the oldest messages."""
        del self.ids[:count], self.headers[:count], self.payloads[:count]


def receive_burst(socket: zmq.Socket[bytes], most: int) -> tuple[Burst, list[list[bytes]], bool]:
    """Take what has arrived, without blocking.

    Parameters
    ----------
    most
        Messages after which it is enough.

    Returns
    -------
    burst
        Messages of three parts.
    odd
        Parts that are no such messages.
    drained
        Whether nothing was left.
    """
    burst = Burst()
    odd: list[list[bytes]] = []
    receive, flags = socket.recv, int(zmq.NOBLOCK)
    add_id, add_header = burst.ids.append, burst.headers.append
    add_payload = burst.payloads.append
    try:
        for _ in range(most):
            # All parts of a message arrive at once: only the first can be missing.
            parts = [receive(flags, False)]
            while parts[-1].more:
                parts.append(receive(flags, False))
            if len(parts) == _PARTS:
                stream, header, payload = parts
                add_id(stream.bytes)
                add_header(header.bytes)
                add_payload(payload)
            else:
                odd.append([part.bytes for part in parts])
    except zmq.Again:
        return burst, odd, True
    return burst, odd, False
