"""Audio from ZeroMQ publishers: ``SUB`` for ``PUB`` taps, ``PULL`` for ``PUSH`` taps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import zmq

from serd.channel import Waker
from serd.errors import BindError
from serd.protocol.tap import MAX_PAYLOAD_BYTES
from serd.sources.base import Intake
from serd.sources.burst import Burst, receive_burst
from serd.types import Role

# A frame beyond the protocol's limit is refused by the decoder and counted. One beyond this is
# refused by libzmq, which then drops the connection: the price of not having to hold it in memory.
_MAX_FRAME_BYTES = 16 * MAX_PAYLOAD_BYTES

# Messages taken from a socket before other sources get their turn: long enough to drain in bulk
# (at 50 messages a second a stream, 40 ms worth of 1,000 streams), short enough to be fair.
_BURST = 2000


@dataclass(frozen=True, slots=True)
class ZmqOptions:
    """One ZeroMQ source.

    Attributes
    ----------
    socket
        ``"PULL"`` or ``"SUB"``.
    bind, connect
        Endpoints; any number of each.
    subscribe
        Prefixes of stream ids, for ``SUB``.
    receive_hwm
        ZeroMQ's high-water mark, messages per peer.
    roles
        Roles of the channels of a tap that names none.
    """

    name: str
    socket: str
    bind: tuple[str, ...] = ()
    connect: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ("",)
    receive_hwm: int = 10_000
    roles: tuple[Role, ...] = ()


class ZmqSource:
    """Drains one socket in bulk into the intake. Implements `serd.sources.base.Source`."""

    def __init__(self, options: ZmqOptions, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._options = options
        self._context = context
        self._socket: zmq.Socket[bytes] | None = None
        self._held: Burst | None = None
        self._counts: Counter[str] = Counter()
        self.endpoints: list[str] = []

    @property
    def name(self) -> str:
        """Name from the configuration."""
        return self._options.name

    @property
    def lossless(self) -> bool:
        """PULL waits, and so does its peer; SUB drops."""
        return self._options.socket == "PULL"

    @property
    def finished(self) -> bool:
        """A socket never is."""
        return False

    def open(self, waker: Waker) -> None:  # a socket wakes the poller itself
        """Bind and connect.

        Raises
        ------
        BindError
            An endpoint is malformed, in use or not permitted.
        """
        options = self._options
        socket = self._context.socket(zmq.PULL if options.socket == "PULL" else zmq.SUB)
        socket.linger = 0
        socket.rcvhwm = options.receive_hwm
        socket.setsockopt(zmq.MAXMSGSIZE, _MAX_FRAME_BYTES)
        if options.socket == "SUB":
            for prefix in options.subscribe:
                socket.setsockopt(zmq.SUBSCRIBE, prefix.encode())
        endpoint = ""
        try:
            for endpoint in options.bind:
                socket.bind(endpoint)
                self.endpoints.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
            for endpoint in options.connect:
                socket.connect(endpoint)
                self.endpoints.append(endpoint)
        except zmq.ZMQError as error:
            socket.close()
            verb = "bind" if endpoint in options.bind else "connect"
            raise BindError(
                f"{verb}_failed", f"source {options.name}: cannot {verb} {endpoint}: {error}"
            ) from error
        self._socket = socket

    def pollables(self) -> Sequence[zmq.Socket[bytes] | int]:
        """The socket, except while messages are held back: then only room can help."""
        return [self._socket] if self._socket is not None and self._held is None else []

    def service(self, now_ns: int, intake: Intake) -> int | None:
        """Take what has arrived. Asks to be called again at once when more may be waiting."""
        socket = self._socket
        if socket is None:
            return None
        if self._held is not None and not self._hand_over(self._held, now_ns, intake):
            return None
        burst, odd, drained = receive_burst(socket, _BURST)
        self._counts["received"] += len(burst) + len(odd)
        for parts in odd:
            # Whatever it is, it is refused and counted, so its place among the others is nothing.
            intake.message(self, parts, self._options.roles, now_ns)
        if not self._hand_over(burst, now_ns, intake):
            self._counts["waits"] += 1
            return None
        return None if drained else now_ns

    def _hand_over(self, burst: Burst, now_ns: int, intake: Intake) -> bool:
        """Whether all of it was taken; if not, the rest is held."""
        taken = intake.messages(self, burst, self._options.roles, now_ns)
        burst.drop(taken)
        self._held = burst if len(burst) else None
        return self._held is None

    def close(self) -> None:
        """Close the socket; what it still holds is lost to a SUB and kept by PUSH peers."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def counts(self) -> dict[str, int]:
        """`received` messages; `waits`: times that a message had to wait for room."""
        return dict(self._counts)
