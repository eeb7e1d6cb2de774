"""Audio from ZeroMQ publishers: ``SUB`` for ``PUB`` taps, ``PULL`` for ``PUSH`` taps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import zmq

from serd.channel import Waker
from serd.curve import Door
from serd.errors import BindError
from serd.protocol.tap import MAX_PAYLOAD_BYTES
from serd.sources.base import Intake
from serd.sources.burst import Burst, receive_burst
from serd.sources.meter import Meter, PeerLimits
from serd.types import Role

# A frame beyond the protocol's limit is refused by the decoder and counted. One beyond this is
# refused by libzmq, which then drops the connection: the price of not having to hold it in memory.
_MAX_FRAME_BYTES = 16 * MAX_PAYLOAD_BYTES

# Messages taken from a socket before other sources get their turn: long enough to drain in bulk
# (at 50 messages a second a stream, 40 ms worth of 1,000 streams), short enough to be fair.
_BURST = 2000
_OPEN = Door()


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
    server_keys
        With CURVE: public keys of whom it connects to, one for each endpoint or one for all.
    limits
        What one peer may send.
    """

    name: str
    socket: str
    bind: tuple[str, ...] = ()
    connect: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ("",)
    receive_hwm: int = 10_000
    roles: tuple[Role, ...] = ()
    server_keys: tuple[str, ...] = ()
    limits: PeerLimits = field(default_factory=PeerLimits)


class ZmqSource:
    """Drains one socket in bulk into the intake. Implements `serd.sources.base.Source`.

    Parameters
    ----------
    options
        Endpoints and limits.
    context
        ZeroMQ context.
    door
        Who may send.
    """

    def __init__(
        self,
        options: ZmqOptions,
        context: zmq.Context[zmq.Socket[bytes]],
        door: Door = _OPEN,
    ) -> None:
        self._options = options
        self._context = context
        self._door = door
        # Messages are looked at one by one only where somebody is to be held to something.
        self._meter = (
            Meter(options.name, options.limits, door, named=bool(options.bind))
            if door.keys is not None or options.limits.any
            else None
        )
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
        self._door.serve(socket, "send")
        endpoint = ""
        try:
            for endpoint in options.bind:
                socket.bind(endpoint)
                self.endpoints.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
            # libzmq gives each endpoint the options that hold when it is added.
            for number, endpoint in enumerate(options.connect):
                if options.server_keys:
                    self._door.reach(
                        socket, options.server_keys[min(number, len(options.server_keys) - 1)]
                    )
                socket.connect(endpoint)
                self.endpoints.append(endpoint)
        except zmq.ZMQError as error:
            self._door.close(socket)
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
        if self._meter is None:
            burst, odd, drained = receive_burst(socket, _BURST)
        else:
            burst, odd, drained = self._meter.receive(socket, _BURST, now_ns)
            for parts in self._meter.refused():
                intake.refuse(self, parts, self._options.roles, "peer_streams")
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
            self._door.close(self._socket)
            self._socket = None

    def counts(self) -> dict[str, int]:
        """`received` messages; `waits`: times that a message had to wait for room;
        `limited.<reason>`: messages that their peer might not send.
        """
        limited = {} if self._meter is None else dict(self._meter.counts)
        return {**self._counts, **limited}
