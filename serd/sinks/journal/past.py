"""Reads the journal for the replay socket, in a thread of its own: a disk may make it wait."""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections import deque
from typing import Final, NamedTuple, TypeAlias

import structlog

from serd.channel import Waker
from serd.protocol.replay import ReplayDone, ReplayError, ReplayRequest, StoredEvent
from serd.sinks.journal.faults import describe
from serd.sinks.journal.reader import Reader
from serd.sinks.journal.store import ForeignFileError
from serd.sinks.journal.writer import Journal
from serd.threads import name_thread

Answer: TypeAlias = list[StoredEvent | ReplayDone | ReplayError]
WAITING_LIMIT: Final = 256
"""Most requests that wait; one more is answered with an error."""

_log = structlog.get_logger(__name__)


class Question(NamedTuple):
    """A request for what is no longer in memory.

    `bound` is the cursor from which everything is in memory, `newest` that of the newest event.
    """

    peer: bytes
    request: ReplayRequest
    limit: int
    bound: int
    newest: int


class PastReader:
    """Answers questions in the order in which they are asked.

    Parameters
    ----------
    journal
        Where the events are.
    run_id
        Of this run.
    """

    def __init__(self, journal: Journal, run_id: str) -> None:
        self._journal = journal
        self._run_id = run_id
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._answers: deque[tuple[bytes, Answer]] = deque()
        self._reader: Reader | None = None
        self._waker: Waker | None = None
        self._thread = threading.Thread(target=self._run, name="serd-past", daemon=True)

    def start(self, waker: Waker) -> None:
        """Begin; `waker` is woken when there is an answer."""
        self._waker = waker
        self._thread.start()

    def ask(self, question: Question) -> bool:
        """Ask; False if too many wait already."""
        if self._questions.qsize() >= WAITING_LIMIT:
            return False
        self._questions.put(question)
        return True

    def answers(self) -> list[tuple[bytes, Answer]]:
        """What has been answered since the last time, and to whom."""
        found = []
        while self._answers:
            found.append(self._answers.popleft())
        return found

    def stop(self) -> None:
        """End; one that waits for the disk is left to itself."""
        self._questions.put(None)
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        name_thread("serd-past")
        while (question := self._questions.get()) is not None:
            try:
                answer = self._answer(question)
            except (sqlite3.Error, ForeignFileError, OSError) as error:
                self._close()
                code, _, remedy = describe(error)
                _log.warning("journal.unreadable", code=code, error=str(error), remedy=remedy)
                answer = [self._nothing_before(question)]
            self._answers.append((question.peer, answer))
            if self._waker is not None:
                self._waker.wake()
        self._close()

    def _answer(self, question: Question) -> Answer:
        request, bound = question.request, question.bound
        if self._reader is not None and not self._reader.in_place:
            self._close()
        if self._reader is None:
            if not self._journal.path.exists():
                return [self._nothing_before(question)]
            self._reader = Reader(self._journal.path)
        reader = self._reader
        unwritten = self._journal.unwritten_gaps()
        end = bound if request.before is None else min(bound, request.before)
        page = reader.page(request.after, (request.topic,), question.limit, end)
        upto = page.reached if page.more else end - 1
        gaps = page.gaps + [
            (max(first, request.after + 1), min(last, upto))
            for first, last in unwritten
            if last > request.after and first <= upto
        ]
        extent = reader.extent()
        done = ReplayDone(
            run_id=self._run_id,
            after=upto,
            # Behind the journal come the events in memory, unless they are not wanted.
            more=page.more or end == bound,
            oldest=extent.oldest,
            newest=question.newest,
            expired=reader.missing(request.after, question.newest + 1)
            + sum(last - max(first, request.after + 1) + 1 for first, last in unwritten),
            began=extent.began or self._journal.began,
            gaps=tuple(sorted(gaps)),
        )
        return [*page.events, done]

    def _nothing_before(self, question: Question) -> ReplayDone:
        """An answer that points to the events in memory, and knows of none before them."""
        bound = question.bound
        return ReplayDone(
            run_id=self._run_id,
            after=bound - 1,
            more=True,
            oldest=bound,
            newest=question.newest,
            expired=0,
            began=bound,
        )

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
