"""The control socket: what an operator may ask of a running daemon, on this machine alone.

A Unix stream socket that only the daemon's user and root can open. One request a line, one answer
a line, both JSON objects::

    {"command": "use", "model": "serd-crnn"}
    {"ok": true, "model": "serd-crnn-1@sha256:…"}
    {"ok": false, "code": "model_sha256", "message": "…"}

One connection is served at a time: what is asked for changes the daemon, one thing after the
other. Who says nothing for five seconds, or too much, is hung up on.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from serd.errors import BindError, InputError, SerdError
from serd.threads import name_thread

MAX_LINE_BYTES = 1 << 16
"""Longest request or answer."""

_REQUEST_S = 5.0
_BACKLOG = 16
_REQUESTS_A_CONNECTION = 100
_LONGEST_PATH = 107  # unix(7): sun_path has 108 bytes, one of them for the end.

_log = structlog.get_logger(__name__)


class Peer(NamedTuple):
    """Who asks: process and user, as the kernel says."""

    pid: int
    uid: int


Handler = Callable[[Mapping[str, Any], Peer], Mapping[str, Any]]


class ControlError(SerdError):
    """A request that cannot be served, or a daemon that cannot be reached."""

    exit_code = os.EX_UNAVAILABLE


def control_path(configured: str) -> Path | None:
    """Where the socket belongs: ``auto`` is the service manager's runtime directory, if any."""
    if configured == "auto":
        folder = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
        return Path(folder) / "control.sock" if folder else None
    return Path(configured) if configured else None


class Control:
    """Serves the control socket in a thread of its own.

    Parameters
    ----------
    path
        Of the socket. One that a daemon left behind is replaced.

    Raises
    ------
    BindError
        ``control_in_use``: another daemon listens there; ``control_path``: the socket cannot be
        made there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handlers: dict[str, Handler] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._socket = _listening(path)
        self._inode = path.stat().st_ino

    def register(self, command: str, handler: Handler) -> None:
        """Serve a command. The handler runs on the control thread; `SerdError` is told as such."""
        self._handlers[command] = handler

    def start(self) -> None:
        """Begin to serve."""
        self._thread = threading.Thread(target=self._run, name="serd-control", daemon=True)
        self._thread.start()
        _log.info("control.listening", path=str(self.path))

    def stop(self, timeout_s: float = 2.0) -> None:
        """Hang up and remove the socket. A request that is being served is not waited for long."""
        self._stopping.set()
        # Wakes the thread from accept(), which closing the socket would not.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(timeout_s)
        self._socket.close()
        with suppress(OSError):
            # Another daemon may have put its own there.
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()

    def _run(self) -> None:
        name_thread("serd-control")
        while not self._stopping.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return
                # Out of file descriptors: those who wait are served when there are some again.
                _log.error("control.failed", why=error.strerror or str(error))
                self._stopping.wait(1.0)
                continue
            with connection:
                try:
                    self._serve(connection)
                except OSError as error:
                    _log.warning("control.failed", why=error.strerror or str(error))

    def _serve(self, connection: socket.socket) -> None:
        pid, uid, _ = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        lines = _Lines(connection)
        for _ in range(_REQUESTS_A_CONNECTION):
            try:
                line = lines.read(_REQUEST_S)
                if line is None or self._stopping.is_set():
                    return
                answer = self._answer(line, Peer(pid, uid))
            except ControlError as error:
                _log.warning("control.refused", code=error.code, why=error.message, uid=uid)
                _send(connection, {"ok": False, "code": error.code, "message": error.message})
                return
            _send(connection, answer)

    def _answer(self, line: bytes, peer: Peer) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            raise ControlError("control_syntax", "a request is one JSON object on one line")
        command = request.get("command")
        handler = self._handlers.get(command) if isinstance(command, str) else None
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            raise ControlError("control_command", f"command: must be one of {known}")
        _log.info("control.request", command=command, pid=peer.pid, uid=peer.uid)
        try:
            return {"ok": True, **handler(request, peer)}
        except SerdError as error:
            return {"ok": False, "code": error.code, "message": error.message}
        except Exception as error:
            _log.exception("control.failed", command=command)
            return {"ok": False, "code": "internal", "message": type(error).__name__}


def ask(path: Path, request: Mapping[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
    """Send one request to the daemon behind a control socket, and return its answer.

    Raises
    ------
    InputError
        ``no_control``: there is no such socket, or this user may not open it.
    ControlError
        ``control_silent``: no answer in time; otherwise the code and the message of the daemon.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
        except OSError as error:
            why = error.strerror or str(error)
            hint = {
                errno.EACCES: "; run it as root or as the daemon's user",
                errno.ENOENT: "; is the daemon running, and is this its daemon.control?",
                errno.ECONNREFUSED: "; the daemon that made it has ended",
            }.get(error.errno or 0, "")
            raise InputError("no_control", f"control socket {path}: {why}{hint}") from None
        try:
            _send(connection, request)
            line = _Lines(connection).read(timeout_s)
        except OSError:
            line = None
        if line is None:
            raise ControlError(
                "control_silent", f"control socket {path}: no answer within {timeout_s:g} s"
            )
    answer: dict[str, Any] = json.loads(line)
    if not answer.get("ok"):
        raise ControlError(str(answer.get("code")), str(answer.get("message")))
    return answer


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    connection.settimeout(_REQUEST_S)
    connection.sendall(json.dumps(message).encode() + b"\n")


class _Lines:
    """Lines of a connection, each with a limit of its size and of the time it takes to come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held = b""

    def read(self, timeout_s: float) -> bytes | None:
        """The next line, None at the end or when it does not come in time."""
        deadline_s = time.monotonic() + timeout_s
        while b"\n" not in self._held:
            if len(self._held) > MAX_LINE_BYTES:
                raise ControlError(
                    "control_too_long", f"a line is longer than {MAX_LINE_BYTES} bytes"
                )
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return None
            self._connection.settimeout(left_s)
            try:
                more = self._connection.recv(1 << 14)
            except TimeoutError:
                return None
            if not more:
                return None
            self._held += more
        line, _, self._held = self._held.partition(b"\n")
        return line


def _listening(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise BindError(
            "control_path", f"daemon.control: {path}: longer than {_LONGEST_PATH} bytes"
        )
    if path.is_socket():
        _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before bind, which gives the file this mode: at no time may others open it.
        os.fchmod(listening.fileno(), 0o600)
        listening.bind(str(path))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        why = error.strerror or str(error)
        raise BindError("control_path", f"daemon.control: {path}: {why}") from None
    return listening


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            return
        else:
            raise BindError(
                "control_in_use", f"daemon.control: {path}: another daemon listens there"
            )
