"""Gives events their place: cursor, sequence in their stream, identity and time."""

from __future__ import annotations

import secrets

from serd.clock import Clock
from serd.protocol.events import DaemonEvent, Event, ShadowEvent, StreamEvent, utc


def new_run_id() -> str:
    """Identity of one run of the daemon: 16 hex digits."""
    return secrets.token_hex(8)


class Stamper:
    """Stamps events in the order in which they are published. One thread.

    Parameters
    ----------
    run_id
        16 hex digits, new at every start.
    clock
        Gives `emitted_at`.
    first
        The first cursor.
    """

    def __init__(self, run_id: str, clock: Clock, first: int = 1) -> None:
        self._prefix = run_id + "-"
        self._clock = clock
        self._next_seq: dict[str, int] = {}
        self._first = first
        self.last_cursor = first - 1

    def stamp(self, event: Event) -> bool:
        """Fill in `cursor`, `id`, `emitted_at` and, of its kind, `seq` or `last_cursor`.

        Returns
        -------
        bool
            Whether this is the last event of its stream, whose `seq` then begins again at 0: it
            was closed, or refused without ever having been opened.
        """
        last_of_stream = False
        if isinstance(event, DaemonEvent):
            event.last_cursor = self.last_cursor if self.last_cursor >= self._first else 0
        elif not isinstance(event, ShadowEvent):
            # A shadow's events come when they come, also after their stream was closed.
            stream = event.stream
            seq = self._next_seq.get(stream, 0)
            event.seq = seq
            if isinstance(event, StreamEvent) and (
                event.state == "closed" or (event.state == "refused" and seq == 0)
            ):
                self._next_seq.pop(stream, None)
                last_of_stream = True
            else:
                self._next_seq[stream] = seq + 1
        self.last_cursor += 1
        event.cursor = self.last_cursor
        event.id = f"{self._prefix}{self.last_cursor}"
        event.emitted_at = utc(self._clock.unix_ns())
        return last_of_stream
