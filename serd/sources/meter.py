"""How much each peer may send, and in whose name.

A stream belongs to the peer that began it, until it ends or falls silent: nobody can speak into
the stream of another. Messages beyond a peer's rates are dropped before anything looks into them;
the sequence numbers of those that follow tell the gap.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import structlog
import zmq

from serd.curve import Connection, Door
from serd.protocol.tap import MAX_CHANNELS, Flag
from serd.sources.burst import Burst

_log = structlog.get_logger(__name__)

_PARTS: Final = 3
_NS: Final = 1_000_000_000
_UNLIMITED: Final = 1e15
_TELL_NS: Final = 60 * _NS
_SWEEP_NS: Final = _NS
_CHANNELS_AT: Final = 5
_FLAGS_AT: Final = 6
_END: Final = int(Flag.END)
# Refused streams that are remembered of a peer, so that each is told once.
_MOST_REFUSED: Final = 1000
_MOST_PEERS: Final = 100_000


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """What one peer may send. 0 is no limit.

    Attributes
    ----------
    streams
        Channels at once.
    messages_s, bytes_s
        Messages and payload a second; one second's worth may come at once.
    idle_s
        A stream that is silent for so long has ended.
    """

    streams: int = 0
    messages_s: int = 0
    bytes_s: int = 0
    idle_s: float = 30.0

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.streams or self.messages_s or self.bytes_s)


@dataclass(slots=True)
class _Account:
    """What a peer has left, and what it was denied."""

    name: str
    at_ns: int
    messages: float
    size: float
    streams: int = 0
    refused: set[bytes] = field(default_factory=set)
    denied: Counter[str] = field(default_factory=Counter)
    told_ns: int = -_TELL_NS


@dataclass(slots=True)
class _Owned:
    account: _Account
    channels: int
    heard_ns: int


class Meter:
    """Takes messages from a socket and drops those that their peers may not send. One thread.

    Parameters
    ----------
    source
        Name of the source, for the log.
    limits
        Of each peer.
    door
        Tells whom a message is from, and whether that peer may still send.
    named
        Whether peers connect, and so may have names; whoever this daemon connects to has none.
    """

    def __init__(self, source: str, limits: PeerLimits, door: Door, *, named: bool) -> None:
        self._source = source
        self._limits = limits
        self._door = door
        self._keyed = door.keys is not None
        self._property = "User-Id" if self._keyed and named else "Peer-Address"
        self._messages = limits.messages_s or _UNLIMITED
        self._bytes = limits.bytes_s or _UNLIMITED
        self._accounts: dict[str, _Account] = {}
        self._owned: dict[bytes, _Owned] = {}
        self._told_refused: list[list[bytes]] = []
        self._swept_ns = 0
        self.counts: Counter[str] = Counter()

    def receive(
        self, socket: zmq.Socket[bytes], most: int, now_ns: int
    ) -> tuple[Burst, list[list[bytes]], bool]:
        """`serd.sources.burst.receive_burst` without what may not be sent."""
        burst = Burst()
        odd: list[list[bytes]] = []
        receive, flags, name_of = socket.recv, int(zmq.NOBLOCK), self._property
        add_id, add_header = burst.ids.append, burst.headers.append
        add_payload, accounts, owned = burst.payloads.append, self._accounts, self._owned
        if now_ns - self._swept_ns >= _SWEEP_NS:
            self._sweep(now_ns)
        try:
            for _ in range(most):
                parts = [receive(flags, False)]
                while parts[-1].more:
                    parts.append(receive(flags, False))
                try:
                    account = accounts[parts[0].get(name_of)]  # type: ignore[index]  # a property is text
                except (KeyError, zmq.ZMQError):
                    account = self._account(parts[0], now_ns)
                if account.at_ns != now_ns:
                    self._refill(account, now_ns)
                account.messages -= 1
                if len(parts) != _PARTS:
                    size = sum(map(len, parts))
                    account.size -= size
                    if account.messages < 0 or account.size < 0:
                        self._deny(account, size, now_ns)
                    else:
                        odd.append([part.bytes for part in parts])
                    continue
                stream, header, payload = parts
                account.size -= len(payload)
                if account.messages < 0 or account.size < 0:
                    self._deny(account, len(payload), now_ns)
                    continue
                raw_id, raw_header = stream.bytes, header.bytes
                own = owned.get(raw_id)
                if own is None or own.account is not account:
                    own = self._own(account, raw_id, raw_header, parts, now_ns)
                    if own is None:
                        continue
                own.heard_ns = now_ns
                if len(raw_header) > _FLAGS_AT and raw_header[_FLAGS_AT] & _END:
                    self._release(raw_id)
                add_id(raw_id)
                add_header(raw_header)
                add_payload(payload)
        except zmq.Again:
            return burst, odd, True
        return burst, odd, False

    def refused(self) -> list[list[bytes]]:
        """First messages of streams beyond the limit, each stream once; they are forgotten here."""
        told, self._told_refused = self._told_refused, []
        return told

    def _account(self, frame: zmq.Frame, now_ns: int) -> _Account:
        name = self._door.who(frame)
        account = self._accounts.get(name)
        if account is None:
            account = _Account(name, now_ns, self._messages, self._bytes)
            if len(self._accounts) < _MOST_PEERS:
                self._accounts[name] = account
        return account

    def _refill(self, account: _Account, now_ns: int) -> None:
        seconds = (now_ns - account.at_ns) / _NS
        account.at_ns = now_ns
        account.messages = min(self._messages, account.messages + seconds * self._messages)
        account.size = min(self._bytes, account.size + seconds * self._bytes)

    def _deny(self, account: _Account, size: int, now_ns: int) -> None:
        self._note(account, "messages" if account.messages < 0 else "bytes", now_ns)
        # What is not taken is not owed: a peer that sends too much gets its rate, not silence.
        account.messages += 1
        account.size += size

    def _note(self, account: _Account, reason: str, now_ns: int) -> None:
        self.counts[f"limited.{reason}"] += 1
        account.denied[reason] += 1
        self._tell(account, now_ns)

    def _tell(self, account: _Account, now_ns: int) -> None:
        if account.denied and now_ns - account.told_ns >= _TELL_NS:
            account.told_ns = now_ns
            _log.warning("limit.exceeded", source=self._source, peer=account.name, **account.denied)
            account.denied.clear()

    def _own(
        self, account: _Account, raw_id: bytes, header: bytes, parts: list[zmq.Frame], now_ns: int
    ) -> _Owned | None:
        """Let a peer begin a stream; None if it may not."""
        if self._keyed and not self._may(account, parts[0]):
            self._note(account, "removed", now_ns)
            return None
        if raw_id in self._owned:
            self._note(account, "foreign", now_ns)
            return None
        channels = header[_CHANNELS_AT] if len(header) > _CHANNELS_AT else 1
        channels = max(1, min(MAX_CHANNELS, channels))
        if self._limits.streams and account.streams + channels > self._limits.streams:
            self._note(account, "streams", now_ns)
            if raw_id not in account.refused and len(account.refused) < _MOST_REFUSED:
                account.refused.add(raw_id)
                self._told_refused.append([part.bytes for part in parts])
            return None
        account.streams += channels
        account.refused.discard(raw_id)
        own = self._owned[raw_id] = _Owned(account, channels, now_ns)
        return own

    def _may(self, account: _Account, frame: zmq.Frame) -> bool:
        # Whoever this daemon has connected to has proved the key that it was asked for, and has
        # no name.
        if "/" not in account.name or self._door.may(account.name, "send"):
            return True
        connection = Connection.behind(frame)
        if connection is not None:
            connection.shut()
        return False

    def _release(self, raw_id: bytes) -> None:
        own = self._owned.pop(raw_id)
        own.account.streams -= own.channels

    def _sweep(self, now_ns: int) -> None:
        self._swept_ns = now_ns
        idle_ns = int(self._limits.idle_s * _NS)
        removed = {
            name
            for name in self._accounts
            if self._keyed and "/" in name and not self._door.may(name, "send")
        }
        for raw_id, own in list(self._owned.items()):
            if own.account.name in removed or now_ns - own.heard_ns > idle_ns:
                self._release(raw_id)
        for name, account in list(self._accounts.items()):
            self._tell(account, now_ns)
            quiet = now_ns - account.at_ns > idle_ns
            if quiet:
                account.refused.clear()
            if quiet and not account.streams and not account.denied:
                del self._accounts[name]
