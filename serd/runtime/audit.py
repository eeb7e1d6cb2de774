"""The audit log: who did what with the daemon, appended to a file that shows changes.

One JSON object a line. ``previous`` is the SHA-256 of the line before, without its line break, so
that a line that is changed, left out or put in breaks the chain; the first line of a file goes on
from the last one of the file that was set aside before it. The hash needs no key: who can write
the file can also write a whole new chain, and who can cut it can cut its end. Both show only
against a hash that was kept elsewhere, which is why starts and stops tell theirs to the log
(`audit.chain`) too.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from serd.clock import Clock
from serd.errors import ConfigError
from serd.threads import name_thread

_log = structlog.get_logger(__name__)

FIRST: Final = "0" * 64
"""What stands for the hash of the line before the first."""
FILE_NAME: Final = "audit.jsonl"

_QUEUE = 10_000
_PER_SECOND = 100
_MIB = 1 << 20
_NS = 1_000_000_000
_TAIL_BYTES = 1 << 16
_STOP_TIMEOUT_S = 5.0


def audit_path(configured: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """File of ``audit.path``; None for none."""
    if configured != "auto":
        return Path(configured) if configured else None
    folder = environ.get("LOGS_DIRECTORY") or environ.get("STATE_DIRECTORY")
    # systemd separates several with colons.
    return Path(folder.split(":")[0]) / FILE_NAME if folder else None


class AuditLog:
    """Appends records in a thread of its own; recording never waits for the disk.

    Overflow: beyond 10,000 that wait, records are counted and their number is recorded when
    there is room again; of each kind only 100 a second are recorded one by one.

    Parameters
    ----------
    path
        The file; None to keep no file.
    max_bytes
        A file that has grown so large is renamed, with the time, and a new one begun.
    clock
        Time of the records.
    """

    def __init__(self, path: Path | None, max_bytes: int, clock: Clock) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._queue: deque[tuple[int, str, Mapping[str, Any]]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._busy = False
        self._second = 0
        self._in_second: Counter[str] = Counter()
        self._omitted: Counter[str] = Counter()
        self._previous = FIRST
        self._file: int | None = None
        self._failing = False
        self._counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="serd-audit", daemon=True)

    def start(self) -> None:
        """Open the file and begin.

        Raises
        ------
        ConfigError
            The file cannot be opened: an audit log that was asked for is not optional.
        """
        if self.path is None:
            return
        try:
            self._open(self.path)
        except OSError as error:
            raise ConfigError(
                "audit_unwritable",
                f"audit.path: {self.path} cannot be written ({error.strerror}); name a file in a"
                ' folder of the service, or "" for none',
            ) from None
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, as far as the disk lets it, and close."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_STOP_TIMEOUT_S)
        if self._file is not None and not self._thread.is_alive():
            os.close(self._file)
            self._file = None

    def record(self, event: str, **fields: Any) -> None:
        """Note that something happened. Any thread; never waits, never raises.

        Parameters
        ----------
        event
            Kind, in lowercase dotted words.
        fields
            Values that JSON can hold. No secrets, no audio.
        """
        if self.path is None:
            return
        now_ns = self._clock.unix_ns()
        with self._changed:
            second = now_ns // _NS
            if second != self._second:
                self._second = second
                self._in_second.clear()
            self._in_second[event] += 1
            full = len(self._queue) >= _QUEUE
            if full or self._in_second[event] > _PER_SECOND:
                self._omitted[event] += 1
                self._counts["lost"] += full
                return
            self._tell_omitted(now_ns)
            self._queue.append((now_ns, event, fields))
            self._changed.notify_all()

    def _tell_omitted(self, now_ns: int) -> None:
        if self._omitted:
            self._queue.append((now_ns, "omitted", dict(self._omitted)))
            self._omitted.clear()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything recorded so far is written or given up."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    def counts(self) -> dict[str, int]:
        """`records` written, `failures` to write, `lost` for want of room or of a disk; none
        without a file. All are there from the start, so that an alarm can watch them.
        """
        if self.path is None:
            return {}
        return {"records": 0, "failures": 0, "lost": 0, **self._counts}

    def _run(self) -> None:
        name_thread("serd-audit")
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if self._stopping:
                    self._tell_omitted(self._clock.unix_ns())
                if not self._queue:
                    return
                waiting, self._queue = self._queue, deque()
                self._busy = True
            for record in waiting:
                self._write(*record)

    def _write(self, unix_ns: int, event: str, fields: Mapping[str, Any]) -> None:
        at = datetime.fromtimestamp(unix_ns / _NS, UTC).isoformat(timespec="milliseconds")
        line = json.dumps(
            {"at": at, "event": event, **fields, "previous": self._previous},
            ensure_ascii=False,
            default=str,
        ).encode()
        assert self.path is not None, "there is a thread only where there is a file"
        try:
            if self._file is None:
                self._open(self.path)
                return self._write(unix_ns, event, fields)
            _append(self._file, line + b"\n")
            if event in ("start", "stop"):
                os.fdatasync(self._file)
            size = os.fstat(self._file).st_size
        except OSError as error:
            self._counts["failures"] += 1
            self._counts["lost"] += 1
            if not self._failing:
                _log.error("audit.failed", path=str(self.path), why=error.strerror)
            self._failing = True
            if self._file is not None:
                # Opened anew for the next record: the disk may be another by then.
                os.close(self._file)
                self._file = None
            return None
        if self._failing:
            _log.info("audit.resumed", path=str(self.path), lost=self._counts["lost"])
        self._failing = False
        self._counts["records"] += 1
        self._previous = hashlib.sha256(line).hexdigest()
        if event in ("start", "stop"):
            _log.info("audit.chain", at=event, sha256=self._previous)
        if size >= self._max_bytes:
            self._set_aside(self.path)
        return None

    def _open(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(path, flags, 0o600)
        try:
            size = os.fstat(file).st_size
            tail = os.pread(file, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
            if tail and not tail.endswith(b"\n"):
                # The machine stopped in the middle of a line. It is kept as it is.
                _append(file, b"\n")
        except OSError:
            os.close(file)
            raise
        if tail:
            last = tail.rstrip(b"\n").rpartition(b"\n")[2]
            self._previous = hashlib.sha256(last).hexdigest()
        self._file = file

    def _set_aside(self, path: Path) -> None:
        """Begin a new file; the chain goes on in it."""
        stamp = datetime.fromtimestamp(self._clock.unix_ns() / _NS, UTC).strftime("%Y%m%dT%H%M%SZ")
        number, aside = 0, path.with_name(f"{path.stem}-{stamp}{path.suffix}")
        while aside.exists():
            number += 1
            aside = path.with_name(f"{path.stem}-{stamp}-{number}{path.suffix}")
        try:
            path.rename(aside)
        except OSError as error:
            _log.error("audit.failed", path=str(path), why=error.strerror)
            return
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _append(file: int, line: bytes) -> None:
    """Append all of it, or raise OSError and leave nothing of it behind."""
    size = os.fstat(file).st_size
    written = 0
    try:
        while written < len(line):
            written += os.write(file, line[written:])
    except OSError:
        if written:
            os.ftruncate(file, size)
        raise
