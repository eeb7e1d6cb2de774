"""Asking the replay socket, page by page and without waiting for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import zmq

from serd.client.connect import connect
from serd.curve import Link
from serd.errors import MessageError
from serd.protocol.replay import (
    ReplayDone,
    ReplayError,
    ReplayRequest,
    StoredEvent,
    decode_reply,
    encode_request,
)

_ATTEMPT_S: Final = 1.0


class Gap(NamedTuple):
    """Cursors of events that are not kept: the first and the last, and whether all between were."""

    first: int
    last: int
    counted: bool


class Page(NamedTuple):
    """One answer, all of it."""

    events: list[StoredEvent]
    done: ReplayDone


class ReplaySocket:
    """A DEALER socket with at most one request under way.

    Parameters
    ----------
    timeout_s
        How long it may be silent, attempts and all. A request is sent again every second, because
        the daemon may have been killed with it.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        timeout_s: float,
        curve: Link | None,
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._curve = curve
        self._timeout_s = timeout_s
        self._events: list[StoredEvent] = []
        self._request: ReplayRequest | None = None
        self._attempt_ends = self._ends = 0.0
        self.undecodable = 0
        self.socket = self._connected()

    def _connected(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        try:
            socket.setsockopt(zmq.RCVHWM, 0)
            connect(socket, self._endpoint, self._curve)
        except BaseException:
            socket.close(linger=0)
            raise
        return socket

    @property
    def asking(self) -> bool:
        """Whether a request is under way."""
        return self._request is not None

    @property
    def wakes_at(self) -> float:
        """When `poll` has something to do even if nothing comes, by `time.monotonic`."""
        return min(self._attempt_ends, self._ends)

    def ask(self, request: ReplayRequest) -> None:
        """Send a request."""
        now = time.monotonic()
        self._ends = now + self._timeout_s
        self._send(request, now)

    def _send(self, request: ReplayRequest, now: float) -> None:
        self._request = request
        self._events = []
        self._attempt_ends = now + _ATTEMPT_S
        self.socket.send_multipart(encode_request(request))

    def poll(self) -> Page | ReplayError | None:
        """What has come of the request by now: an answer, an error, or nothing yet.

        An error of code ``no_answer`` says that the time is up.
        """
        request = self._request
        assert request is not None
        try:
            while True:
                reply = decode_reply(self.socket.recv_multipart(zmq.DONTWAIT))
                if isinstance(reply, StoredEvent):
                    self._events.append(reply)
                    continue
                if isinstance(reply, ReplayDone):
                    self._request = None
                    return Page(self._events, reply)
                if reply.code != "busy":
                    self._request = None
                    return reply
                # Asked again when this attempt ends.
                self._events = []
        except zmq.Again:
            pass
        except MessageError:
            self.undecodable += 1
        now = time.monotonic()
        if now >= self._ends:
            self._anew()
            self._request = None
            return ReplayError(code="no_answer", message="the replay socket does not answer")
        if now >= self._attempt_ends:
            self._anew()
            self._send(request, now)
        return None

    def _anew(self) -> None:
        # A late answer must not be taken for the one to the next request.
        self.socket.close(linger=0)
        self.socket = self._connected()

    def close(self) -> None:
        """Release the socket."""
        self.socket.close(linger=0)


class Recovery:
    """Everything wanted between two cursors, over as many requests as that takes.

    Topics are asked for one by one; what they bring is put in the order of the cursors as soon as
    nothing older can come. So it never holds more than a page of each.

    Parameters
    ----------
    topics
        Prefixes.
    after, before
        Cursors, both excluded; `before` None is as far as there is anything.
    last
        Only the newest event of each topic.
    """

    def __init__(
        self, topics: Sequence[str], after: int, before: int | None, *, last: bool = False
    ) -> None:
        self.after = after
        self.before = before
        self.last = last
        self.newest = 0
        self.run_id: str | None = None
        self.journal = False
        """Whether the daemon has one."""
        self._topics = tuple(topics)
        self._positions = dict.fromkeys(range(len(self._topics)), after)
        self._pending: dict[int, StoredEvent | Gap] = {}

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to ask for."""
        return not self._positions

    def request(self) -> ReplayRequest:
        """What to ask next."""
        index = min(self._positions, key=self._positions.__getitem__)
        self._asked = index
        return ReplayRequest(
            after=self._positions[index],
            before=self.before,
            topic=self._topics[index],
            last=self.last,
        )

    def take(self, page: Page) -> list[StoredEvent | Gap]:
        """Take an answer; return what comes next, oldest first."""
        events, done = page
        first = self.run_id is None
        self.run_id, self.newest, self.journal = done.run_id, done.newest, done.began > 0
        for event in events:
            self._pending[event.cursor] = event
        index = self._asked
        if not self.last:
            self._take_gaps(done, self._positions[index], first)
        if done.more and (events or done.after > self._positions[index]):
            self._positions[index] = done.after
        else:
            del self._positions[index]
        horizon = min(self._positions.values(), default=None)
        ready = sorted(cursor for cursor in self._pending if horizon is None or cursor <= horizon)
        return [self._pending.pop(cursor) for cursor in ready]

    def _take_gaps(self, done: ReplayDone, asked_after: int, first: bool) -> None:
        for gap_first, gap_last in done.gaps:
            self._pending.setdefault(gap_first, Gap(gap_first, gap_last, counted=True))
        if not first:
            return
        if self.journal:
            if 0 < asked_after < done.began - 1:
                self._pending[asked_after + 1] = Gap(asked_after + 1, done.began - 1, False)
        elif done.expired:
            upto = asked_after + done.expired
            if self.before is not None:
                upto = min(upto, self.before - 1)
            if upto > asked_after:
                self._pending[asked_after + 1] = Gap(asked_after + 1, upto, counted=True)
