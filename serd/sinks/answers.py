"""What the replay socket answers: from the events in memory, or from the journal behind them."""

from __future__ import annotations

from typing import TypeAlias

from serd.channel import Waker
from serd.protocol.replay import MAX_LIMIT, ReplayDone, ReplayError, ReplayRequest, StoredEvent
from serd.sinks.journal.past import PastReader, Question
from serd.sinks.journal.writer import Journal
from serd.sinks.lastvalues import LastValues
from serd.sinks.ring import EventRing

Answer: TypeAlias = list[StoredEvent | ReplayDone | ReplayError]


class Answers:
    """Answers requests for past events. One thread.

    Parameters
    ----------
    run_id
        Of this run.
    ring, last_values
        The events in memory.
    journal
        What lies before them; None for nothing.
    """

    def __init__(
        self, run_id: str, ring: EventRing, last_values: LastValues, journal: Journal | None
    ) -> None:
        self._run_id = run_id
        self._ring = ring
        self._last_values = last_values
        self._journal = journal
        self._past = PastReader(journal, run_id) if journal is not None else None

    def start(self, waker: Waker) -> None:
        """Begin to read the journal; `waker` is woken when there are `late_answers`."""
        if self._past is not None:
            self._past.start(waker)

    def stop(self) -> None:
        """Read the journal no more."""
        if self._past is not None:
            self._past.stop()

    def to(self, peer: bytes, request: ReplayRequest) -> Answer:
        """Answer at once; empty if the answer comes late."""
        limit = min(request.limit, MAX_LIMIT)
        ring, journal = self._ring, self._journal
        if self._past is not None and journal is not None and not request.last:
            bound = ring.oldest_cursor or journal.first
            if request.after < bound - 1:
                newest = ring.newest_cursor or bound - 1
                if self._past.ask(Question(peer, request, limit, bound, newest)):
                    return []
                return [ReplayError(code="busy", message="too many requests wait: ask again")]
        kept = self._last_values if request.last else ring
        page = kept.after(request.after, request.topic.encode(), limit, request.before)
        oldest = ring.oldest_cursor
        done = ReplayDone(
            run_id=self._run_id,
            after=page.reached,
            more=page.more,
            oldest=oldest if journal is None else journal.oldest or oldest,
            newest=ring.newest_cursor,
            expired=0 if request.last else max(0, oldest - 1 - request.after),
            began=0 if journal is None else journal.began,
        )
        return [*page.events, done]

    def late_answers(self) -> list[tuple[bytes, Answer]]:
        """Those that are ready by now, and to whom."""
        return self._past.answers() if self._past is not None else []
