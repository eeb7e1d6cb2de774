"""Whom the endpoints of a configuration let in."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator

from serd.config.schema import Config, ZmqSourceConfig

Found = tuple[tuple[str, ...], str]


def security_conflicts(config: Config) -> Iterator[Found]:
    """Paths of the keys involved and what is wrong, for `serd.config.combinations`."""
    security = config.security
    if security.curve and not security.peers:
        yield (
            ("security.peers", "security.curve"),
            "is empty: nobody could send, subscribe or replay; serd keygen prints the lines for"
            " each peer",
        )
    if security.peers and not security.curve:
        yield (
            ("security.curve", "security.peers"),
            "is false although peers are listed: nobody would be asked for a key",
        )
    for key in ("name", "public_key"):
        counts = Counter(getattr(peer, key) for peer in security.peers)
        for value, count in counts.items():
            if count > 1:
                yield (("security.peers",), f"{value} is the {key} of {count} peers")
    yield from _server_keys(config)
    if not security.curve and not security.allow_plaintext:
        yield from _plaintext(config)


def _server_keys(config: Config) -> Iterator[Found]:
    for index, source in enumerate(config.sources):
        if not isinstance(source, ZmqSourceConfig):
            continue
        path = f"sources.{index}.server_keys"
        if not config.security.curve:
            if source.server_keys:
                yield (
                    (path, "security.curve"),
                    "only means something with security.curve = true",
                )
            continue
        if source.connect and not source.server_keys:
            yield (
                (path, f"sources.{index}.connect", "security.curve"),
                "is required with security.curve: the public key of whoever is at"
                f" {', '.join(source.connect)}",
            )
        elif len(source.server_keys) not in {1, len(source.connect)}:
            yield (
                (path, f"sources.{index}.connect"),
                f"holds {len(source.server_keys)} keys for {len(source.connect)} endpoints of"
                " connect: one for each, or one for all",
            )


def _plaintext(config: Config) -> Iterator[Found]:
    endpoints = [
        (f"sources.{index}.{key}", endpoint)
        for index, source in enumerate(config.sources)
        if isinstance(source, ZmqSourceConfig)
        for key in ("bind", "connect")
        for endpoint in getattr(source, key)
    ]
    endpoints += [("publish.bind", endpoint) for endpoint in config.publish.bind]
    endpoints += [("publish.replay_bind", endpoint) for endpoint in config.publish.replay_bind]
    for path, endpoint in endpoints:
        if not is_local(endpoint):
            yield (
                (path, "security.curve", "security.allow_plaintext"),
                f"{endpoint} reaches beyond this machine, unencrypted and open to anybody:"
                " set security.curve = true (serd keygen), use 127.0.0.1, or, where the network"
                " itself is trusted, set security.allow_plaintext = true",
            )


def is_local(endpoint: str) -> bool:
    """Whether only this machine reaches an endpoint."""
    if not endpoint.startswith("tcp://"):
        return True
    host = re.sub(r"^tcp://", "", endpoint).rpartition(":")[0].strip("[]")
    if host in {"localhost", "lo"}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
