"""The replay socket's own side: who is answered, and what becomes of those who do not listen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from serd.curve import Door
from serd.protocol.replay import ReplayDone, ReplayError, ReplayRequest, StoredEvent, encode_request
from serd.sinks.answers import Answers
from serd.sinks.desk import ReplayDesk
from serd.sinks.lastvalues import LastValues
from serd.sinks.ring import EventRing
from serd.sinks.sockets import prepare
from serd.sinks.subscribers import SubscriberLimits, Subscribers
from tests.fakes import FakeClock
from tests.sinks.harness import PATIENCE_MS, RUN, Context, ask

EVENTS = [StoredEvent(cursor, b"emotion.call", b"{}") for cursor in range(1, 41)]


class Office:
    """A desk behind a ROUTER socket, which is served when a test says so."""

    def __init__(self, context: Context, replays_s: int = 0) -> None:
        ring = EventRing(100)
        for event in EVENTS:
            ring.append(event)
        self.clock = FakeClock()
        door = Door()
        subscribers = Subscribers(SubscriberLimits(replays_s=replays_s), door)
        self.desk = ReplayDesk(Answers(RUN, ring, LastValues(), None), subscribers, self.clock)
        self.router = context.socket(zmq.ROUTER)
        xpub = context.socket(zmq.XPUB)
        prepare(xpub, self.router, 1000)
        xpub.close()
        self.port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.dealer = context.socket(zmq.DEALER)
        self.dealer.connect(f"tcp://127.0.0.1:{self.port}")

    def serve(self, requests: int = 1) -> None:
        """Serve until so many requests have been taken."""
        wanted = self.desk.counts["replay_requests"] + requests
        while self.desk.counts["replay_requests"] < wanted:
            assert self.router.poll(PATIENCE_MS), "no request came"
            self.desk.serve(self.router)

    def send(self, after: int = 0) -> None:
        self.dealer.send_multipart(encode_request(ReplayRequest(after=after, topic="", limit=100)))

    def close(self) -> None:
        self.router.close(linger=0)
        self.dealer.close(linger=0)


@pytest.fixture
def office(zmq_context: Context) -> Iterator[Office]:
    office = Office(zmq_context)
    yield office
    office.close()


def _answer(office: Office) -> tuple[list[StoredEvent], ReplayDone | ReplayError]:
    # Asks for nothing: reads what the request before it brought.
    return ask(office.dealer, [b""])


def test_what_is_asked_for_is_answered_and_counted(office: Office) -> None:
    office.send(after=30)
    office.serve()
    events, done = _answer(office)
    assert [event.cursor for event in events] == list(range(31, 41))
    assert isinstance(done, ReplayDone)
    assert office.desk.counts == {
        "replay_requests": 1,
        "replay_requests_bad": 0,
        "replay_answers_cut_short": 0,
        "replay_events": 10,
    }


def test_what_is_no_request_is_told_so(office: Office) -> None:
    office.dealer.send_multipart([b"who goes there"])
    office.serve()
    events, error = _answer(office)
    assert events == []
    assert isinstance(error, ReplayError)
    assert error.code == "bad_request"
    assert office.desk.counts["replay_requests_bad"] == 1


def test_who_asks_too_often_is_told_to_wait(zmq_context: Context) -> None:
    office = Office(zmq_context, replays_s=1)
    for _ in range(2):
        office.send()
    office.serve(2)
    assert isinstance(_answer(office)[1], ReplayDone)
    error = _answer(office)[1]
    assert isinstance(error, ReplayError)
    assert (error.code, "a second" in error.message) == ("busy", True)
    office.close()


def test_others_have_their_turn_between_requests(office: Office) -> None:
    for _ in range(20):
        office.send()
    taken: list[int] = []
    while sum(taken) < 20:
        assert office.router.poll(PATIENCE_MS), "no request came"
        before = office.desk.counts["replay_requests"]
        office.desk.serve(office.router)
        taken.append(office.desk.counts["replay_requests"] - before)
    # libzmq aborts when a socket is closed that is in the middle of a message of several parts.
    for _ in range(20):
        assert isinstance(_answer(office)[1], ReplayDone)
    assert max(taken) <= 8


def test_an_answer_to_somebody_who_has_gone_is_cut_short(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = [(b"nobody", [EVENTS[0], EVENTS[1]])]
    monkeypatch.setattr(office.desk._answers, "late_answers", lambda: gone)
    office.desk.send_late(office.router)
    assert office.desk.counts["replay_answers_cut_short"] == 1
