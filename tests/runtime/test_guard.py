"""The guard with real sockets: who gets in, and what is counted of those who do not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import zmq
from structlog.testing import capture_logs

from serd.curve import CurveKeys, Door, Link
from serd.runtime.guard import Guard, Refusal
from serd.runtime.zap import Peer, Policy
from tests.fakes import FakeClock, wait_until

Context = zmq.Context[zmq.Socket[bytes]]

SERVER, TAP, DASHBOARD, STRANGER = (CurveKeys.generate() for _ in range(4))
POLICY = Policy(
    [
        Peer("tap", TAP.public, frozenset({"send"})),
        Peer("dashboard", DASHBOARD.public, frozenset({"subscribe", "replay"})),
    ]
)


class Site:
    """A guarded PULL socket and peers that try it."""

    def __init__(self, context: Context, *, curve: bool = True, most: int = 100) -> None:
        self.refused: list[tuple[Refusal, int]] = []
        self.clock = FakeClock()
        self.guard = Guard(
            context,
            self.clock,
            POLICY,
            100,
            most,
            lambda refusal, count: self.refused.append((refusal, count)),
        )
        self.guard.start()
        self.door = Door(SERVER if curve else None, self.guard.watch, self.guard.may)
        self._context = context
        self._stack = ExitStack()
        self.pull = context.socket(zmq.PULL)
        self.door.serve(self.pull, "send")
        # Nobody is to wait ten seconds for a silent peer here.
        self.pull.setsockopt(zmq.HANDSHAKE_IVL, 300)
        self.port = self.pull.bind_to_random_port("tcp://127.0.0.1")

    def push(self, link: Link | None) -> zmq.Socket[bytes]:
        push = self._stack.enter_context(self._context.socket(zmq.PUSH))
        push.linger = 0
        if link is not None:
            link.reach(push)
        push.connect(f"tcp://127.0.0.1:{self.port}")
        push.send(b"audio", zmq.NOBLOCK)
        return push

    def raw(self, source: str = "127.0.0.1") -> socket.socket:
        return self._stack.enter_context(
            socket.create_connection(("127.0.0.1", self.port), source_address=(source, 0))
        )

    def connect_and_leave(self) -> None:
        raw = self.raw()
        wait_until(lambda: self.count("connections") == 1, "it to be seen")
        raw.close()

    def count(self, name: str) -> int:
        return self.guard.counts().get(name, 0)

    def close(self) -> None:
        self._stack.close()
        self.door.close(self.pull)
        self.guard.stop()


@pytest.fixture
def site(zmq_context: Context) -> Iterator[Site]:
    site = Site(zmq_context)
    yield site
    site.close()


def test_a_peer_with_the_right_key_sends_under_its_name(site: Site) -> None:
    site.push(Link(TAP, SERVER.public))
    frame = site.pull.recv(copy=False)
    assert frame.bytes == b"audio"
    who = site.door.who(frame)
    assert who == f"tap/{TAP.public[:8]}"
    assert site.door.may(who, "send")
    assert not site.door.may(who, "replay")
    wait_until(lambda: site.count("handshakes") == 1, "the handshake to be counted")
    assert site.count("connections") == 1


@pytest.mark.parametrize(
    ("link", "counter"),
    [
        (Link(STRANGER, SERVER.public), "refused.unknown_key"),
        (Link(DASHBOARD, SERVER.public), "refused.not_permitted"),
        (Link(TAP, STRANGER.public), "handshake_failures.wrong_key"),
        (None, "handshake_failures.no_curve"),
    ],
)
def test_others_do_not_get_in_and_are_counted(site: Site, link: Link | None, counter: str) -> None:
    site.push(link)
    wait_until(lambda: site.count(counter), counter)
    good = site.push(Link(TAP, SERVER.public))
    good.send(b"last")
    received = [site.pull.recv(), site.pull.recv()]
    assert received == [b"audio", b"last"]
    if counter.startswith("refused"):
        [(refusal, count)] = site.refused
        assert (refusal.address, refusal.right, count) == ("127.0.0.1", "send", 1)
        assert refusal.why == counter.removeprefix("refused.")


@pytest.mark.parametrize(
    ("sent", "counter"),
    [
        (b"GET / HTTP/1.0\r\n\r\n" * 20, "handshake_failures.garbage"),
        (b"\xff" + bytes(8) + b"\x7f\x03\x01NOISE" + bytes(47), "handshake_failures.garbage"),
    ],
)
def test_garbage_is_counted_and_hurts_nobody(site: Site, sent: bytes, counter: str) -> None:
    raw = site.raw()
    raw.sendall(sent)
    # It may have been cut off already.
    with suppress(OSError):
        raw.shutdown(socket.SHUT_WR)

    def failed() -> int:
        return sum(
            count
            for name, count in site.guard.counts().items()
            if name.startswith("handshake_failures.")
        )

    wait_until(failed, counter)
    site.push(Link(TAP, SERVER.public))
    assert site.pull.recv() == b"audio"


def test_a_half_open_handshake_is_given_up_and_its_descriptor_freed(site: Site) -> None:
    raw = site.raw()
    wait_until(lambda: site.count("handshake_failures.timeout") == 1, "the time-out")
    while raw.recv(4096):
        pass
    assert site.count("connections") == 0


class SlowToLeave:
    """A line to a site that stays connected whatever the peer behind it does."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            end = socket.create_connection(("127.0.0.1", self._site.port))
            self._ends += [peer, end]
            for pair in ((peer, end), (end, peer)):
                self._threads.append(threading.Thread(target=self._carry, args=pair))
                self._threads[-1].start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)

    def close(self) -> None:
        for end in (self._listening, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        for end in (self._listening, *self._ends):
            end.close()


def test_who_was_refused_and_stays_is_counted_as_refused_alone(
    site: Site, zmq_context: Context
) -> None:
    line = SlowToLeave(site)
    # Each tries once, for as long as this lasts.
    pushes = [zmq_context.socket(zmq.PUSH) for _ in range(20)]
    for push in pushes:
        push.setsockopt(zmq.RECONNECT_IVL, 600_000)
        Link(STRANGER, SERVER.public).reach(push)
        push.connect(f"tcp://127.0.0.1:{line.port}")
    wait_until(lambda: site.count("refused.unknown_key") == 20, "the refusals")
    wait_until(lambda: site.count("connections") == 0, "the end of their time")
    assert _failures(site) == {}
    # What is wrong with others is seen as before.
    site.raw().sendall(b"GET / HTTP/1.0\r\n\r\n" * 20)
    wait_until(lambda: site.count("connections") == 0 and _failures(site), "garbage")
    assert _failures(site) == {"handshake_failures.garbage": 1}
    for push in pushes:
        push.close(linger=0)
    line.close()


def test_failures_beside_a_refused_one_are_counted_as_what_they_are(
    site: Site, zmq_context: Context
) -> None:
    line = SlowToLeave(site)
    push = zmq_context.socket(zmq.PUSH)
    push.setsockopt(zmq.RECONNECT_IVL, 600_000)
    Link(STRANGER, SERVER.public).reach(push)
    push.connect(f"tcp://127.0.0.1:{line.port}")
    wait_until(lambda: site.count("refused.unknown_key"), "the refusal")
    site.raw().close()
    silent = site.raw()
    wait_until(lambda: len(_failures(site)) == 2, "the failures")
    wait_until(lambda: site.count("connections") == 0, "the end of them all")
    assert _failures(site) == {"handshake_failures.closed": 1, "handshake_failures.timeout": 1}
    silent.close()
    push.close(linger=0)
    line.close()


def _failures(site: Site) -> dict[str, int]:
    return {
        name: count
        for name, count in site.guard.counts().items()
        if name.startswith("handshake_failures.") and count
    }


def test_failures_are_logged_with_the_address_once_a_minute(zmq_context: Context) -> None:
    site = Site(zmq_context)
    with capture_logs() as logs:
        for number in range(5):
            site.connect_and_leave()
            wait_until(
                lambda: site.count("handshake_failures.closed") == number + 1,  # noqa: B023
                "a failure",
            )
        site.clock.advance(61)
        site.connect_and_leave()
        wait_until(lambda: site.count("handshake_failures.closed") == 6, "a failure")
        site.close()
    told = [entry for entry in logs if entry["event"] == "handshake.failed"]
    assert told[0]["count"] == 1
    assert len(told) in {2, 3}
    assert sum(entry["count"] for entry in told) == 6
    assert {entry["address"] for entry in told} == {"127.0.0.1"}
    assert {entry["reason"] for entry in told} == {"closed"}
    assert all(entry["why"] for entry in told)


def test_more_connections_of_an_address_than_allowed_are_shut(zmq_context: Context) -> None:
    site = Site(zmq_context, curve=False, most=3)
    kept = [site.raw() for _ in range(3)]
    wait_until(lambda: site.count("connections") == 3, "three connections")
    extra = site.raw()
    extra.settimeout(10)
    while extra.recv(4096):
        pass
    assert site.count("refused.peer_connections") == 1
    wait_until(lambda: site.count("connections") == 3, "it to have ended")
    assert _failures(site) == {}
    kept[0].close()
    wait_until(lambda: site.count("connections") == 2, "room for another")
    site.push(None)
    assert site.pull.recv() == b"audio"
    site.close()


def test_connections_that_are_refused_take_no_room_from_others(zmq_context: Context) -> None:
    site = Site(zmq_context, curve=False, most=2)
    for _ in range(300):
        site.raw("127.0.0.9")
    # Those that are let in end after a moment without a greeting, and make room for others.
    wait_until(lambda: site.count("refused.peer_connections") > 200, "the refusals")
    assert site.count("refused.connections") == 0
    assert site.count("connections") <= 2
    site.push(None)
    assert site.pull.recv() == b"audio"
    site.close()


def test_a_key_that_is_taken_from_the_list_is_refused_from_then_on(site: Site) -> None:
    push = site.push(Link(TAP, SERVER.public))
    who = site.door.who(site.pull.recv(copy=False))
    site.guard.policy = Policy([])
    assert not site.door.may(who, "send")
    push.close()
    site.push(Link(TAP, SERVER.public))
    wait_until(lambda: site.count("refused.unknown_key"), "the refusal")
    site.guard.policy = POLICY
    assert site.pull.recv() == b"audio"


def test_a_new_key_under_an_old_name_is_another_peer() -> None:
    old = Peer("tap", TAP.public, frozenset({"send"}))
    policy = Policy([Peer("tap", STRANGER.public, frozenset({"send"}))])
    assert not policy.may(old.identity, "send")


def test_who_is_asked_nothing_sensible_gets_no_answer() -> None:
    assert POLICY.decide([]) is None
    assert POLICY.decide([b"2.0", b"1", b"send", b"127.0.0.1", b"", b"CURVE", b"x" * 32]) is None
    for mechanism, credentials in ((b"NULL", []), (b"PLAIN", [b"a", b"b"]), (b"CURVE", [b""])):
        decision = POLICY.decide(
            [b"1.0", b"1", b"send", b"127.0.0.1", b"", mechanism, *credentials]
        )
        assert decision is not None
        assert decision.reply[2] == b"300"
        assert decision.why == "unknown_key"


def test_a_socket_may_be_closed_as_soon_as_it_is_watched(zmq_context: Context) -> None:
    guard = Guard(zmq_context, FakeClock(), Policy(), 100, 100)
    guard.start()
    door = Door(None, guard.watch)
    for _ in range(20):
        socket = zmq_context.socket(zmq.PULL)
        door.serve(socket, "send")
        door.close(socket)
    guard.stop()
