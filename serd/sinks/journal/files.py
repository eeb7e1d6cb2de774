"""Two small files beside a journal: the lock that makes it one daemon's, and the cursor's mark.

The mark says how far events were published that the journal could not take. It is allocated in
advance and written in place, so that a full disk cannot refuse it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Final, NamedTuple

from serd.errors import JournalError

_RECORD: Final = struct.Struct("<8s16sQQ")
_CHECKSUM: Final = struct.Struct("<I")
_MAGIC: Final = b"SERDMRK1"
_BLOCK_BYTES: Final = 4096
_PATIENCE_S: Final = 3.0
_RETRY_S: Final = 0.05


class Marked(NamedTuple):
    """A run, by its id, and the first and last cursor it published under."""

    run_id: str
    first: int
    last: int


class Mark:
    """The cursor's mark. One thread at a time.

    Parameters
    ----------
    journal
        Path of the journal that it belongs to.
    """

    def __init__(self, journal: Path) -> None:
        self.path = journal.with_name(journal.name + "-cursor")
        self._fd = -1
        self._written: Marked | None = None

    def read(self) -> Marked | None:
        """What was written last, by whatever run; None where that cannot be told."""
        try:
            content = self.path.read_bytes()[: _RECORD.size + _CHECKSUM.size]
        except OSError:
            return None
        if len(content) < _RECORD.size + _CHECKSUM.size:
            return None
        record, checksum = content[: _RECORD.size], content[_RECORD.size :]
        magic, run_id, first, last = _RECORD.unpack(record)
        if magic != _MAGIC or _CHECKSUM.pack(zlib.crc32(record)) != checksum:
            return None
        return Marked(run_id.decode("ascii", "replace"), first, last)

    def prepare(self) -> None:
        """Open the file, making it if there is none.

        Raises
        ------
        OSError
            It cannot be opened or allocated.
        """
        if self._fd >= 0:
            return
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            missing = _BLOCK_BYTES - os.fstat(fd).st_size
            if missing > 0:
                # Written and not only reserved, so that writing in place needs nothing more.
                os.pwrite(fd, bytes(missing), _BLOCK_BYTES - missing)
                os.fsync(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def write(self, marked: Marked) -> bool:
        """Put a run's cursors down; return whether that succeeded."""
        if marked == self._written:
            return True
        try:
            self.prepare()
            record = _RECORD.pack(_MAGIC, marked.run_id.encode(), marked.first, marked.last)
            os.pwrite(self._fd, record + _CHECKSUM.pack(zlib.crc32(record)), 0)
        except OSError:
            return False
        self._written = marked
        return True

    def close(self) -> None:
        """Release the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Lock:
    """Makes a journal one daemon's. Released by the kernel when the process ends, however it does.

    Parameters
    ----------
    journal
        Path of the journal.
    """

    def __init__(self, journal: Path) -> None:
        self.path = journal.with_name(journal.name + "-lock")
        self._journal = journal
        self._fd = -1

    def take(self, owner: str) -> None:
        """Take the lock and write down whose it is.

        Parameters
        ----------
        owner
            What another daemon is told that finds the lock taken.

        Raises
        ------
        JournalError
            Code ``journal_in_use``: another process has it, and kept it for 3 s (one that was
            killed a moment ago may still be on its way out).

        Notes
        -----
        Where no file can be made nobody else can write the journal either: on a read-only file
        system this does nothing.
        """
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(_RETRY_S)
                    continue
                other = os.pread(fd, 200, 0).decode("utf-8", "replace").strip()
                os.close(fd)
                raise JournalError(
                    "journal_in_use",
                    f"the journal {self._journal} belongs to another daemon that runs"
                    f" ({other or 'it left no name'}): give one of the two another [journal] path",
                ) from None
        self._fd = fd
        # A full disk leaves the name out, which only the error above would have used.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, owner.encode() + b"\n", 0)

    def release(self) -> None:
        """Let others have it. The file stays: removing it would let two daemons in."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
