"""The guard: answers who may come in, and watches the connections of every socket.

One thread. It is ZAP's handler, and the reader of the monitors of all sockets that peers reach: a
monitor that nobody reads would make libzmq's own thread wait, so it outlives those sockets.

libzmq's monitor tells descriptors of connections that are accepted and that end, but of handshakes
only that one has succeeded or failed. A failure is followed at once by the end of its connection,
which tells whose it was. A success is taken for that of the newest connection without one; so
under attack it may be another connection's address that is told. Who is let in does not depend on
it. A connection that ZAP refused ends when it likes, at the latest when the time for its handshake
is up; it is counted once, as refused.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import structlog
import zmq
from zmq.utils.monitor import parse_monitor_message

from serd.channel import Waker
from serd.clock import Clock
from serd.curve import Connection, Right, Socket
from serd.runtime.tally import Key, Tally
from serd.runtime.zap import ENDPOINT, Policy
from serd.threads import name_thread

_log = structlog.get_logger(__name__)

_FLUSH_MS: Final = 5000
_EVENTS_A_TURN: Final = 1000
_EVENTS: Final = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_ACCEPT_FAILED
    | zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_MONITOR_STOPPED
)
_PROTOCOL_REASONS: Final = {
    int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): "no_curve",
    int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "wrong_key",
}
_ADVICE: Final = {
    "timeout": "it connected and said nothing for 10 s",
    "closed": "it went away before the handshake was done: a port scan or a health check",
    "garbage": "it does not speak ZeroMQ",
    "no_curve": "one side uses CURVE and the other does not: see security.curve",
    "wrong_key": "it has another public key for this daemon than the one in force",
    "protocol": "it broke the rules of the ZeroMQ handshake",
    "unknown_key": "its public key is in no [[security.peers]]",
    "not_permitted": "add the right to may in its [[security.peers]] if it should have it",
    "peer_connections": "more connections from its address than limits.peer_connections",
    "connections": "more connections than limits.connections",
}


class Refusal(NamedTuple):
    """Who was not let in. `peer` is its name where its key is known."""

    address: str
    right: str
    why: str
    peer: str


OnRefused = Callable[[Refusal, int], object]


@dataclass(slots=True)
class _Line:
    """One connection as the monitor tells of it."""

    address: str
    connection: Connection | None
    established: bool = False
    refused: bool = False


@dataclass(slots=True)
class _Watched:
    """One socket that is watched, its connections by descriptor, oldest first."""

    right: Right
    monitor: Socket
    lines: dict[int, _Line] = field(default_factory=dict)
    failure: str | None = None
    # Connections that ZAP refused and that have not ended; which they are is not told.
    unwelcome: int = 0


class Guard:
    """Lets peers in or not. `watch` may be called by any thread that owns a socket.

    Parameters
    ----------
    context
        Context of all the sockets that are guarded.
    clock
        For the periods in which failures are told.
    policy
        Who may do what, with CURVE; can be replaced at any time.
    max_connections, max_connections_of_address
        More are shut at once, whether their handshake is done or not.
    on_refused
        Called with a refusal and how often it happened since it was last told: the first time at
        once, then once a minute, so that nobody can fill a disk with them.
    """

    def __init__(
        self,
        context: zmq.Context[Socket],
        clock: Clock,
        policy: Policy,
        max_connections: int,
        max_connections_of_address: int,
        on_refused: OnRefused = lambda _refusal, _count: None,
    ) -> None:
        self.policy = policy
        self._context = context
        self._most = max_connections
        self._most_of_address = max_connections_of_address
        self._on_refused = on_refused
        self._counts: Counter[str] = Counter()
        self._tally = Tally(self._told, clock)
        self._waker = Waker()
        self._numbers = itertools.count()
        self._new: deque[tuple[str, Right, threading.Event]] = deque()
        self._watched: dict[Socket, _Watched] = {}
        self._by_address: Counter[str] = Counter()
        self._stopping = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serd-guard", daemon=True)

    def start(self) -> None:
        """Begin; from here on nobody gets in without being asked for a key, where there are any."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """End, after all sockets that were watched have been closed."""
        self._stopping = True
        self._waker.wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._waker.close()

    def watch(self, socket: Socket, right: Right) -> None:
        """Watch the connections of a socket. Called by the thread that owns it."""
        endpoint = f"inproc://serd.guard.{next(self._numbers)}"
        socket.monitor(endpoint, _EVENTS)
        # Until somebody has connected to it, whatever ends a monitor waits within libzmq, and pyzmq
        # would hold the interpreter's lock all the while.
        connected = threading.Event()
        self._new.append((endpoint, right, connected))
        self._waker.wake()
        connected.wait()

    def may(self, who: str, right: Right) -> bool:
        """Whether a peer that was let in would be let in now."""
        return self.policy.may(who, right)

    def counts(self) -> dict[str, int]:
        """Counters of handshakes and refusals; `connections` is how many are open. Any thread."""
        return {"handshakes": 0, **self._counts, "connections": self._by_address.total()}

    def _run(self) -> None:
        name_thread("serd-guard")
        handler = self._context.socket(zmq.ROUTER)
        try:
            handler.bind(ENDPOINT)
            self._ready.set()
            self._serve(handler)
        finally:
            self._ready.set()
            handler.close(linger=0)
            for monitor in self._watched:
                monitor.close(linger=0)
            self._tally.flush(all_of_it=True)

    def _serve(self, handler: Socket) -> None:
        poller = zmq.Poller()
        poller.register(self._waker.fileno(), zmq.POLLIN)
        poller.register(handler, zmq.POLLIN)
        while not self._stopping:
            self._waker.clear()
            while self._new:
                endpoint, right, connected = self._new.popleft()
                monitor = self._context.socket(zmq.PAIR)
                # Without a bound: at one, libzmq's thread would wait here, and all sockets with it.
                monitor.setsockopt(zmq.RCVHWM, 0)
                monitor.connect(endpoint)
                self._watched[monitor] = _Watched(right, monitor)
                poller.register(monitor, zmq.POLLIN)
                connected.set()
            ready = dict(poller.poll(_FLUSH_MS))
            if handler in ready:
                self._answer(handler)
            for monitor, watched in list(self._watched.items()):
                if monitor in ready and not self._read(watched):
                    poller.unregister(monitor)
                    self._forget(watched)
            self._tally.flush()

    def _answer(self, handler: Socket) -> None:
        for _ in range(_EVENTS_A_TURN):
            try:
                parts = handler.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            decision = self.policy.decide(parts[2:])
            if decision is None:
                continue
            handler.send_multipart([*parts[:2], *decision.reply])
            if decision.why:
                self._refused(decision.address, decision.right, decision.why, decision.peer)

    def _refused(self, address: str, right: str, why: str, peer: str) -> None:
        self._tally.note("peer.refused", address, right, why, peer)
        self._counts[f"refused.{why}"] += 1

    def _told(self, key: Key, count: int) -> None:
        _tell(key, count)
        match key:
            case ["peer.refused", address, right, why, peer]:
                self._on_refused(Refusal(address, right, why, peer), count)

    def _read(self, watched: _Watched) -> bool:
        """Read what a monitor has; return whether it goes on."""
        for _ in range(_EVENTS_A_TURN):
            try:
                message = parse_monitor_message(watched.monitor.recv_multipart(zmq.DONTWAIT))
            except zmq.Again:
                return True
            if message["event"] == zmq.EVENT_MONITOR_STOPPED:
                return False
            try:
                self._note(
                    watched, message["event"], message["value"], message["endpoint"].decode()
                )
            except Exception:
                # One event less is counted. Without this thread libzmq's would come to a halt.
                _log.exception("guard.failed", socket=watched.right)
        return True

    def _forget(self, watched: _Watched) -> None:
        for line in watched.lines.values():
            self._leave(line)
        watched.monitor.close(linger=0)
        del self._watched[watched.monitor]

    def _note(self, watched: _Watched, event: int, value: int, endpoint: str) -> None:
        match event:
            case zmq.EVENT_ACCEPTED:
                self._accepted(watched, value)
            case zmq.EVENT_CONNECTED:
                watched.lines[value] = _Line(endpoint, None)
                self._by_address[endpoint] += 1
            case zmq.EVENT_ACCEPT_FAILED:
                self._counts["accept_failures"] += 1
                self._tally.note("accept.failed", watched.right, zmq.strerror(value))
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._counts["handshakes"] += 1
                for line in reversed(watched.lines.values()):
                    if not line.established:
                        line.established = True
                        break
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                watched.failure = "timeout" if value == zmq.EAGAIN else "closed"
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                watched.failure = _PROTOCOL_REASONS.get(value, "protocol")
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                watched.unwelcome += 1
            case zmq.EVENT_DISCONNECTED:
                self._ended(watched, value)

    def _accepted(self, watched: _Watched, descriptor: int) -> None:
        connection = Connection.of(descriptor)
        address = "unknown" if connection is None else connection.address()
        before = watched.lines.pop(descriptor, None)
        if before is not None:
            self._leave(before)
        line = watched.lines[descriptor] = _Line(address, connection)
        why = None
        if self._by_address[address] >= self._most_of_address:
            why = "peer_connections"
        elif self._by_address.total() >= self._most:
            why = "connections"
        if why is None or connection is None:
            self._by_address[address] += 1
            return
        # Not counted: until libzmq has seen its end, it must not keep anybody out.
        line.refused = True
        self._refused(address, watched.right, why, "")
        connection.shut()

    def _ended(self, watched: _Watched, descriptor: int) -> None:
        failure, watched.failure = watched.failure, None
        line = watched.lines.pop(descriptor, None)
        if line is None:
            return
        self._leave(line)
        if line.refused:
            return
        if failure is None and not line.established:
            if watched.unwelcome:
                watched.unwelcome -= 1
            else:
                failure = "garbage"
        if failure is not None:
            self._counts[f"handshake_failures.{failure}"] += 1
            self._tally.note("handshake.failed", line.address, watched.right, failure)

    def _leave(self, line: _Line) -> None:
        if line.refused:
            return
        self._by_address[line.address] -= 1
        if self._by_address[line.address] <= 0:
            del self._by_address[line.address]


def _tell(key: Key, count: int) -> None:
    match key:
        case ["handshake.failed", address, right, reason]:
            advice = _ADVICE.get(reason, "")
            _log.warning(
                "handshake.failed",
                address=address,
                socket=right,
                reason=reason,
                count=count,
                why=advice,
            )
        case ["peer.refused", address, right, reason, peer]:
            _log.warning(
                "peer.refused",
                address=address,
                socket=right,
                reason=reason,
                peer=peer or None,
                count=count,
                why=_ADVICE.get(reason, ""),
            )
        case ["accept.failed", right, reason]:
            _log.error(
                "accept.failed",
                socket=right,
                reason=reason,
                count=count,
                why="raise LimitNOFILE, or lower limits.connections",
            )
