"""CURVE: keys, the side that connects (`Link`) and the side that others reach (`Door`).

CurveZMQ (https://rfc.zeromq.org/spec/26/) encrypts every frame and proves to each side that the
other holds the secret of its public key. Who may do what is decided elsewhere, by ZAP.
"""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias

import zmq

from serd.errors import BindError, ConfigError

Socket: TypeAlias = "zmq.Socket[bytes]"
Right = Literal["send", "subscribe", "replay"]
RIGHTS: Final[tuple[Right, ...]] = ("send", "subscribe", "replay")

KEY_CHARACTERS: Final = 40
# Long enough for a line that loses packets; a peer that stays silent frees its descriptor then.
_HANDSHAKE_MS: Final = 10_000
_EXPOSED: Final = stat.S_IWGRP | stat.S_IRWXO


def is_key(text: str) -> bool:
    """Whether `text` is a key in Z85 (https://rfc.zeromq.org/spec/32/), public or secret."""
    if len(text) != KEY_CHARACTERS or not text.isascii():
        return False
    try:
        zmq.curve_public(text.encode())
    except (zmq.ZMQError, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """A pair of keys, each 40 characters of Z85. The secret is in no text made of it."""

    public: str
    secret: str = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A new pair, from the system's randomness."""
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())

    @classmethod
    def read(cls, path: Path) -> Self:
        """The pair whose secret key a file holds, as ``serd keygen`` writes it.

        Raises
        ------
        ConfigError
            Codes ``key_unreadable``, ``key_exposed`` (others than the owner and its group may
            read it, or others than the owner may change it) and ``key_invalid``.
        """
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(4096).strip()
        except OSError as error:
            raise ConfigError(
                "key_unreadable",
                f"secret key {path}: {error.strerror or error}; serd keygen makes one",
            ) from error
        if mode & _EXPOSED:
            raise ConfigError(
                "key_exposed",
                f"secret key {path}: others may read or change it"
                f" (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}",
            )
        secret = text.decode("ascii", "replace")
        if not is_key(secret):
            raise ConfigError(
                "key_invalid", f"secret key {path}: is not one line of {KEY_CHARACTERS} characters"
            )
        return cls(zmq.curve_public(secret.encode()).decode(), secret)


@dataclass(frozen=True, slots=True)
class Link:
    """What a program needs to connect to a daemon that uses CURVE.

    Parameters
    ----------
    keys
        The program's own; the daemon lists the public one under ``[[security.peers]]``.
    peer_key
        The daemon's public key. A daemon without its secret is not talked to.
    """

    keys: CurveKeys
    peer_key: str

    def reach(self, socket: Socket) -> None:
        """Make the endpoints that `socket` connects to from here on use CURVE.

        Raises
        ------
        BindError
            Code ``bad_key``: a key is not one.
        """
        _reach(socket, self.keys, self.peer_key)


def _reach(socket: Socket, keys: CurveKeys, peer_key: str) -> None:
    try:
        socket.setsockopt_string(zmq.CURVE_PUBLICKEY, keys.public)
        socket.setsockopt_string(zmq.CURVE_SECRETKEY, keys.secret)
        socket.setsockopt_string(zmq.CURVE_SERVERKEY, peer_key)
    except (zmq.ZMQError, ValueError) as error:
        raise BindError(
            "bad_key", f"a CURVE key is {KEY_CHARACTERS} characters of Z85, as serd keygen prints"
        ) from error


def _everybody(_who: str, _right: Right) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Door:
    """How the sockets of a daemon are entered. By default: by anybody, in the clear.

    Parameters
    ----------
    keys
        The daemon's own; None for no CURVE.
    watch
        Called with a socket, before it is bound, and the right that it takes to use it.
    may
        Whether a peer still has a right. Asked again and again, as rights can be withdrawn.
    """

    keys: CurveKeys | None = None
    watch: Callable[[Socket, Right], None] | None = None
    may: Callable[[str, Right], bool] = _everybody

    def serve(self, socket: Socket, right: Right) -> None:
        """Make the endpoints that `socket` binds from here on ask for a right."""
        socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        if self.keys is not None:
            socket.setsockopt_string(zmq.ZAP_DOMAIN, right)
            # Without somebody who decides, nobody may.
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            socket.setsockopt_string(zmq.CURVE_PUBLICKEY, self.keys.public)
            socket.setsockopt_string(zmq.CURVE_SECRETKEY, self.keys.secret)
            socket.setsockopt(zmq.CURVE_SERVER, 1)
        if self.watch is not None:
            self.watch(socket, right)

    def reach(self, socket: Socket, peer_key: str) -> None:
        """Make the endpoints that `socket` connects to from here on prove that key."""
        if self.keys is not None:
            _reach(socket, self.keys, peer_key)

    def who(self, frame: zmq.Frame) -> str:
        """The peer that a frame came from: its name where keys tell, else its address."""
        # Without ZAP a peer could give itself any name: its address is put in by libzmq.
        for key in ("User-Id", "Peer-Address") if self.keys is not None else ("Peer-Address",):
            with contextlib.suppress(zmq.ZMQError):
                return str(frame.get(key))
        return ""

    def close(self, socket: Socket, linger_ms: int = 0) -> None:
        """Close a socket that was `serve`d."""
        if self.watch is not None and not socket.closed:
            # The events of a socket that lingers would have nobody to read them, and wait for
            # that in libzmq's own thread.
            socket.disable_monitor()
        socket.close(linger=linger_ms)


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection under the number that libzmq gave it, and what tells it from the next of that
    number: its inode.
    """

    descriptor: int
    inode: int

    @classmethod
    def of(cls, descriptor: int) -> Connection | None:
        """The connection that has a number now; None if none has."""
        try:
            return cls(descriptor, os.fstat(descriptor).st_ino)
        except OSError:
            return None

    @classmethod
    def behind(cls, frame: zmq.Frame) -> Connection | None:
        """The connection that a frame came by; None for one within the process, or gone."""
        try:
            return cls.of(int(str(frame.get("__fd"))))
        except zmq.ZMQError:
            return None

    @property
    def alive(self) -> bool:
        """Whether it is open still."""
        return Connection.of(self.descriptor) == self

    def address(self) -> str:
        """The peer's IP address, ``local`` for a socket of this machine, ``unknown`` if gone."""
        try:
            with sockets.socket(fileno=os.dup(self.descriptor)) as copy:
                name = copy.getpeername()
        except OSError:
            return "unknown"
        return str(name[0]) if isinstance(name, tuple) else "local"

    def shut(self) -> bool:
        """End it: libzmq then sees its end and forgets it. Whether there was something to end."""
        if not self.alive:
            return False
        try:
            with sockets.socket(fileno=os.dup(self.descriptor)) as copy:
                copy.shutdown(sockets.SHUT_RDWR)
        except OSError:
            return False
        return True
