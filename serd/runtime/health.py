"""Whether the daemon lives and is ready, and the small HTTP server that says so.

Three addresses, read only: ``/metrics`` for Prometheus, ``/health/live`` and ``/health/ready`` for
whoever starts and routes. The server has a thread of its own, few connections at a time and little
patience, because it must never be a way to hold up the daemon.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final

import structlog

from serd.runtime.metrics import Exposition, Observation
from serd.threads import name_thread

_log = structlog.get_logger(__name__)

MOST_CONNECTIONS: Final = 8
PATIENCE_S: Final = 5.0
"""A connection is closed after so long, whatever it is about."""

_FULL = 0.9

Json = dict[str, Any]


def reasons(seen: Observation) -> list[Json]:
    """Why the daemon is not ready: codes that never change, and sentences for people."""
    found = []
    if seen.state != "ready":
        found.append(_reason(seen.state, f"the daemon is {seen.state}"))
    if not seen.publisher_alive:
        found.append(_reason("publisher_ended", "no events leave: the publisher has ended"))
    found += [
        _reason("stage_stuck", f"the {stage} stage stands still with work to do")
        for stage in seen.stuck
    ]
    return found


def warnings(seen: Observation) -> list[Json]:
    """What an operator should look at although the daemon does its work."""
    found = []
    counts = seen.counts
    if shed := counts.get("overload.rows", 0):
        found.append(_reason("overload", f"{shed} streams are left out: the load is too high"))
    if seen.journal_problem is not None:
        text = f"events are published but not journalled: {seen.journal_problem}"
        found.append(_reason("journal_failing", text))
    for name, up in counts.items():
        if name.startswith("source.") and name.endswith(".up") and not up:
            source = name.removeprefix("source.").removesuffix(".up")
            found.append(_reason("source_down", f"source {source!r} is down; see the log"))
    found += [
        _reason("queue_full", f"the {queue.name} queue is nearly full")
        for queue in seen.queues
        if queue.capacity and (queue.depth or 0) > _FULL * queue.capacity
    ]
    return found


def _reason(code: str, text: str) -> Json:
    return {"code": code, "text": text}


def live(seen: Observation) -> tuple[bool, Json]:
    """Whether to leave the process alone, and the document that says so.

    Only what a restart would cure makes it false.
    """
    found = [reason for reason in reasons(seen) if reason["code"] in _CURED_BY_RESTART]
    return not found, {"live": not found, "state": seen.state, "reasons": found}


_CURED_BY_RESTART = frozenset({"publisher_ended", "stage_stuck"})


def ready(seen: Observation) -> tuple[bool, Json]:
    """Whether to send it audio, and the document that says so."""
    found = reasons(seen)
    return not found, {
        "ready": not found,
        "state": seen.state,
        "reasons": found,
        "warnings": warnings(seen),
        "name": seen.name,
        "version": seen.version,
        "run_id": seen.run_id,
        "uptime_s": round(seen.uptime_s, 3),
        "streams": seen.streams,
        "max_streams": seen.max_streams,
        "model": seen.model,
        "provider": seen.provider,
        "vad": seen.vad,
    }


def split_address(bind: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPv6]:PORT``.

    Raises
    ------
    ValueError
        It is neither.
    """
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("must look like HOST:PORT, with a port up to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            raise ValueError(f"must look like [IPv6]:PORT: {host} is no such address") from None
    if not host or ":" in host:
        raise ValueError("must look like HOST:PORT, an IPv6 address in brackets")
    return host, int(port)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        """Answer one of the three addresses."""
        self._answer(self.path.partition("?")[0])

    def do_HEAD(self) -> None:
        """The same without the content."""
        self._answer(self.path.partition("?")[0])

    def _answer(self, path: str) -> None:
        try:
            self._send(*self._content(path))
        except OSError:
            # The peer has gone.
            raise
        except Exception:
            _log.exception("http.failed", path=path)
            text = b"serd could not tell; its log says why\n"
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", text)

    def _content(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        server = self.server
        if path == "/metrics":
            return HTTPStatus.OK, Exposition.content_type, server.exposition.render()
        if path in server.documents:
            good, document = server.documents[path](server.observe())
            status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
            body = json.dumps(document, indent=1).encode() + b"\n"
            return status, "application/json", body
        text = b"/metrics, /health/live and /health/ready are here\n"
        return HTTPStatus.NOT_FOUND, "text/plain", text

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "serd"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        # A line a scrape would bury the log.
        return


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    documents: Final = {"/health/live": live, "/health/ready": ready}

    def __init__(self, host: str, port: int, observe: Callable[[], Observation]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.observe = observe
        self.exposition = Exposition(observe)
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._lock:
            if len(self._open) >= MOST_CONNECTIONS:
                return False
            self._open[request] = time.monotonic()
        return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second: hang up on those who take too long, a byte at a time or not."""
        latest = time.monotonic() - PATIENCE_S
        with self._lock:
            late = [request for request, began in self._open.items() if began < latest]
        for request in late:
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                # It has gone by itself.
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A peer that goes away while it is answered is its own affair.
        _log.debug("http.request_failed", exc_info=True)


class HealthServer:
    """Serves metrics and health from a thread of its own.

    Parameters
    ----------
    bind
        ``HOST:PORT``; port 0 takes any free one. Empty for no server.
    observe
        What is to be told, asked for at every request.

    Attributes
    ----------
    url
        Where it serves; None if it does not.
    """

    def __init__(self, bind: str, observe: Callable[[], Observation]) -> None:
        self._bind = bind
        self._observe = observe
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.url: str | None = None

    def start(self) -> None:
        """Bind and serve. An address that cannot be had is logged: serd works without."""
        if not self._bind:
            return
        host, port = split_address(self._bind)
        try:
            self._server = server = _Server(host, port, self._observe)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            _log.error(
                "metrics.unavailable",
                bind=self._bind,
                why=error.strerror or str(error),
                hint='another process has the port; set metrics.bind to another, or to ""'
                if taken
                else "set metrics.bind to an address of this machine",
            )
            return
        host, port = server.server_address[:2]  # type: ignore[assignment]  # of the two families in use
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._thread = threading.Thread(target=self._run, args=(server,), daemon=True)
        self._thread.start()

    def _run(self, server: _Server) -> None:
        name_thread("serd-http")
        server.serve_forever()

    def stop(self) -> None:
        """Close the port and every connection to it."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = None
