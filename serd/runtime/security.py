"""Guard, door and limits from the configuration."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
import zmq

from serd.clock import Clock
from serd.config.schema import Config, SecuritySection
from serd.curve import CurveKeys, Door, Socket
from serd.runtime.guard import Guard, OnRefused
from serd.runtime.zap import Peer, Policy
from serd.sinks.subscribers import Subscribers

_log = structlog.get_logger(__name__)

# Descriptors for everything that is not a connection: libraries, files, sockets of our own.
_OWN_DESCRIPTORS: Final = 256
_MOST_DESCRIPTORS: Final = 1 << 17


def secret_key_path(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Where ``security.secret_key`` is: a credential of the service manager, else a path."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder and "/" not in name and (Path(folder) / name).exists():
        return Path(folder) / name
    return Path(name)


def policy_of(security: SecuritySection) -> Policy:
    """Who may do what."""
    return Policy(Peer(peer.name, peer.public_key, frozenset(peer.may)) for peer in security.peers)


def raise_file_limit(wanted: int) -> int:
    """Let this process open so many descriptors, as far as the system permits; how many it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    raised = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if raised > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return max(soft, raised)


class Security:
    """What keeps others out, made from a configuration and started.

    Parameters
    ----------
    on_refused
        See `Guard`.

    Raises
    ------
    ConfigError
        The secret key cannot be used.
    """

    def __init__(
        self,
        config: Config,
        context: zmq.Context[Socket],
        clock: Clock,
        on_refused: OnRefused = lambda _refusal, _count: None,
    ) -> None:
        security, limits = config.security, config.limits
        keys = CurveKeys.read(secret_key_path(security.secret_key)) if security.curve else None
        wanted = min(limits.connections + _OWN_DESCRIPTORS, _MOST_DESCRIPTORS)
        permitted = raise_file_limit(wanted) - _OWN_DESCRIPTORS
        if permitted < limits.connections:
            _log.warning(
                "connections.limited",
                connections=max(1, permitted),
                why="the limit of open files is lower than limits.connections needs:"
                " raise LimitNOFILE",
            )
        self.guard = Guard(
            context,
            clock,
            policy_of(security),
            max(1, min(limits.connections, permitted)),
            limits.peer_connections,
            on_refused,
        )
        self.door = Door(keys, self.guard.watch, self.guard.may if keys else Door().may)

    def start(self) -> None:
        """Begin to guard."""
        self.guard.start()

    def stop(self) -> None:
        """Stop, after all sockets are closed."""
        self.guard.stop()

    def counts(self) -> dict[str, int]:
        """Counters of handshakes and refusals. Any thread."""
        return self.guard.counts()

    def let_in(self, config: Config, subscribers: Subscribers) -> None:
        """Put the peers of another configuration into force.

        New peers are let in from their next attempt on, which comes within ten seconds. Of who is
        no longer listed, or has lost a right or changed its key, subscribers are cut off here,
        requests are refused from the next on, and audio is from within a second.
        """
        before = len(self.guard.policy)
        self.guard.policy = policy_of(config.security)
        cut_off = 0
        if self.door.keys is not None:
            cut_off = subscribers.turn_out(lambda who: self.door.may(who, "subscribe"))
        _log.info("security.peers", before=before, now=len(self.guard.policy), cut_off=cut_off)
