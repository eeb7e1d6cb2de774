"""What a source of audio looks like to the ingest thread, and what the intake offers to it.

Every method of a source is called by the ingest thread alone. A source never blocks: it does
what is due and says when it wants to be called again. Work that can block (opening a sound
device) happens in a thread of the source's own, which hands its result over through the waker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import zmq

from serd.channel import Waker
from serd.sources.burst import Burst
from serd.types import Encoding, Int16Array, Role


class Tap(Protocol):
    """Handle of an open source stream (all its channels), as the intake gave it out."""

    @property
    def stream(self) -> str:
        """The source's stream id, without a channel suffix."""
        ...


class Intake(Protocol):
    """Takes audio from sources and writes it into rows."""

    def message(
        self, source: Source, parts: Sequence[bytes], roles: Sequence[Role], now_ns: int
    ) -> bool:
        """Take one multipart message of the tap protocol.

        Parameters
        ----------
        roles
            Roles of the channels when the tap names none.

        Returns
        -------
        bool
            False when a lossless source has to wait: call again with the same message, later.
            Everything else, malformed messages included, is dealt with and True.
        """
        ...

    def messages(self, source: Source, burst: Burst, roles: Sequence[Role], now_ns: int) -> int:
        """Take many messages; the outcome is the same as of `message` for one after another.

        Returns
        -------
        int
            How many were taken. Fewer than all only where a lossless source has to wait: it
            keeps the rest and calls again with them, later.
        """
        ...

    def refuse(
        self, source: Source, parts: Sequence[bytes], roles: Sequence[Role], reason: str
    ) -> None:
        """Tell that the stream which a message would begin is refused; nothing is opened."""
        ...

    def open_stream(
        self,
        source: Source,
        stream: str,
        sample_rate_hz: int,
        channels: int,
        roles: Sequence[Role],
        encoding: Encoding,
        captured_at_ns: int,
        call_id: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Tap:
        """Open a stream; one channel is `stream`, of several each is ``stream/k``.

        A stream that policy or capacity refuses is still returned: what is pushed to it is
        discarded and its refusal has been told to subscribers.
        """
        ...

    def room(self, tap: Tap) -> int:
        """Samples per channel that `push` takes right now without loss."""
        ...

    def push(self, tap: Tap, samples: Int16Array, captured_at_ns: int) -> None:
        """Append consecutive samples, int16 ``[n, channels]``.

        What does not fit is dropped, counted and told as a gap of reason ``overload``.
        """
        ...

    def lose(self, tap: Tap, samples: int, reason: str) -> None:
        """Tell that `samples` per channel were lost before they could be pushed."""
        ...

    def close_stream(self, tap: Tap, reason: str) -> None:
        """End a stream; an open utterance is finished first."""
        ...


class Source(Protocol):
    """A microphone, a file or a set of ZeroMQ endpoints."""

    @property
    def name(self) -> str:
        """Name from the configuration, unique in a daemon."""
        ...

    @property
    def lossless(self) -> bool:
        """True where the source waits for room (PULL, file); False where it drops."""
        ...

    @property
    def finished(self) -> bool:
        """Whether nothing will ever come again (a file at its end)."""
        ...

    def open(self, waker: Waker) -> None:
        """Bind, connect or start. `waker` may be woken from any thread.

        Raises
        ------
        SourceError
            The source cannot be opened now or ever; the message says why.
        """
        ...

    def pollables(self) -> Sequence[zmq.Socket[bytes] | int]:
        """Sockets and descriptors whose readability means that `service` has work."""
        ...

    def service(self, now_ns: int, intake: Intake) -> int | None:
        """Do what is due, without blocking.

        Returns
        -------
        int or None
            Monotonic time in ns at which to be called again even if nothing was readable;
            None to wait for readability or the waker.
        """
        ...

    def close(self) -> None:
        """Release everything. Streams of the source are closed by the caller."""
        ...

    def counts(self) -> dict[str, int]:
        """Monotonic counters of the source, for heartbeat and metrics."""
        ...
