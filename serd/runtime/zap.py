"""Deciding by key: ZAP, the ZeroMQ Authentication Protocol (https://rfc.zeromq.org/spec/27/)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from zmq.utils import z85

from serd.curve import RIGHTS, Right

ENDPOINT: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
_PARTS: Final = 7


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody who is let in: name, public key, and what it may do."""

    name: str
    public_key: str
    may: frozenset[Right]

    @property
    def identity(self) -> str:
        """What its messages carry: a peer that gets a new key is not the one that had the old."""
        return f"{self.name}/{self.public_key[:8]}"


class Decision(NamedTuple):
    """An answer to a request. `why` is empty when the peer is let in."""

    reply: list[bytes]
    address: str
    right: str
    peer: str
    why: str


class Policy:
    """Which keys may do what. Never changes: to change it is to put another in its place."""

    def __init__(self, peers: Iterable[Peer] = ()) -> None:
        self._by_key = {z85.decode(peer.public_key): peer for peer in peers}
        self._rights = {peer.identity: peer.may for peer in self._by_key.values()}

    def __len__(self) -> int:
        return len(self._by_key)

    def may(self, identity: str, right: Right) -> bool:
        """Whether whoever was let in as `identity` would be let in again."""
        return right in self._rights.get(identity, ())

    def decide(self, parts: Sequence[bytes]) -> Decision | None:
        """Answer a request of libzmq, its envelope taken off; None if it is none."""
        if len(parts) < _PARTS - 1 or parts[0] != _VERSION:
            return None
        _, request, domain, raw_address, _identity, mechanism, *credentials = parts
        address, right = raw_address.decode("ascii", "replace"), domain.decode("ascii", "replace")
        peer = self._by_key.get(credentials[0]) if credentials else None
        why = ""
        if mechanism != b"CURVE" or peer is None:
            why = "unknown_key"
        elif right not in RIGHTS or right not in peer.may:
            why = "not_permitted"
        name = "" if peer is None else peer.name
        # Of 300 libzmq tells the peer nothing; of 400 it would, and the peer's would then never try
        # again, not even after its key has been put on the list.
        status = [b"300", b"", b"", b""]
        if peer is not None and not why:
            status = [b"200", b"", peer.identity.encode(), b""]
        return Decision([_VERSION, request, *status], address, right, name, why)
