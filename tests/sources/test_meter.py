"""What one peer may send, over real sockets, and in the name of which stream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq
from structlog.testing import capture_logs

from serd.curve import Door
from serd.protocol.tap import Flag, Header, encode_header
from serd.sources.burst import Burst
from serd.sources.meter import Meter, PeerLimits
from serd.types import Encoding
from tests.fakes import wait_until

Context = zmq.Context[zmq.Socket[bytes]]
Parts = list[bytes]

SECOND = 1_000_000_000


def message(stream: str, size: int = 160, flags: int = 0, channels: int = 1) -> Parts:
    header = Header(Encoding.MULAW, channels, Flag(flags), 8000, 0, 0, 0)
    return [stream.encode(), encode_header(header), bytes(size)]


class Site:
    def __init__(self, context: Context, limits: PeerLimits) -> None:
        self.pull = context.socket(zmq.PULL)
        self.port = self.pull.bind_to_random_port("tcp://127.0.0.1")
        self.meter = Meter("in", limits, Door(), named=True)
        self.now_ns = 100 * SECOND
        self._context = context
        self._sockets: list[zmq.Socket[bytes]] = [self.pull]

    def peer(self, number: int) -> zmq.Socket[bytes]:
        """A tap with an address of its own."""
        push = self._context.socket(zmq.PUSH)
        push.linger = 0
        push.connect(f"tcp://127.0.0.{number}:0;127.0.0.1:{self.port}")
        self._sockets.append(push)
        return push

    def send(self, push: zmq.Socket[bytes], *messages: Parts) -> list[bytes]:
        """Send, and take all of it; the ids that passed."""
        for each in messages:
            push.send_multipart(each)
        passed, seen = Burst(), 0
        before = sum(self.meter.counts.values())

        def taken() -> bool:
            nonlocal seen
            burst, odd, _ = self.meter.receive(self.pull, 10_000, self.now_ns)
            passed.ids.extend(burst.ids)
            seen += len(burst) + len(odd)
            return seen + sum(self.meter.counts.values()) - before >= len(messages)

        wait_until(taken, "all messages")
        return passed.ids

    def close(self) -> None:
        for each in self._sockets:
            each.close(linger=0)


@pytest.fixture
def make(zmq_context: Context) -> Iterator[list[Site]]:
    sites: list[Site] = []
    yield sites
    for site in sites:
        site.close()


def site_with(make: list[Site], context: Context, **limits: float) -> Site:
    make.append(Site(context, PeerLimits(**limits)))  # type: ignore[arg-type]  # of any kind
    return make[-1]


def test_messages_a_second_are_limited_by_peer(make: list[Site], zmq_context: Context) -> None:
    site = site_with(make, zmq_context, messages_s=10)
    fast, modest = site.peer(2), site.peer(3)
    assert len(site.send(fast, *[message("f")] * 25)) == 10
    assert len(site.send(modest, *[message("m")] * 10)) == 10
    assert site.meter.counts["limited.messages"] == 15
    # Half a second later half of a second's messages pass: the rest is not held against it.
    site.now_ns += SECOND // 2
    assert len(site.send(fast, *[message("f")] * 8)) == 5


def test_bytes_a_second_are_limited_by_peer(make: list[Site], zmq_context: Context) -> None:
    site = site_with(make, zmq_context, bytes_s=1000)
    push = site.peer(2)
    assert len(site.send(push, *[message("s", 300)] * 5)) == 3
    assert site.meter.counts["limited.bytes"] == 2
    # A smaller one still fits.
    assert site.send(push, message("s", 100)) == [b"s"]


def test_odd_messages_use_up_the_rate_too(make: list[Site], zmq_context: Context) -> None:
    site = site_with(make, zmq_context, messages_s=3)
    push = site.peer(2)
    site.send(push, [b"a"], [b"a", b"b"], [b"a", b"b", b"c", b"d"])
    assert site.send(push, message("s")) == []


def test_channels_are_limited_and_each_stream_is_told_once(
    make: list[Site], zmq_context: Context
) -> None:
    site = site_with(make, zmq_context, streams=3)
    push = site.peer(2)
    assert site.send(push, message("a"), message("b", channels=2), message("c")) == [b"a", b"b"]
    assert [parts[0] for parts in site.meter.refused()] == [b"c"]
    assert site.send(push, message("c"), message("d")) == []
    assert [parts[0] for parts in site.meter.refused()] == [b"d"]
    # What ends makes room.
    assert site.send(push, message("b", flags=Flag.END), message("c")) == [b"b", b"c"]
    # Others have streams of their own.
    assert site.send(site.peer(3), message("x")) == [b"x"]


def test_a_silent_stream_makes_room(make: list[Site], zmq_context: Context) -> None:
    site = site_with(make, zmq_context, streams=1, idle_s=5)
    push = site.peer(2)
    assert site.send(push, message("a"), message("b")) == [b"a"]
    site.now_ns += 6 * SECOND
    assert site.send(push, message("b")) == [b"b"]


def test_nobody_speaks_into_the_stream_of_another(make: list[Site], zmq_context: Context) -> None:
    site = site_with(make, zmq_context, streams=10, idle_s=5)
    owner, other = site.peer(2), site.peer(3)
    assert site.send(owner, message("call")) == [b"call"]
    assert site.send(other, message("call"), message("call", flags=Flag.END)) == []
    assert site.meter.counts["limited.foreign"] == 2
    assert site.send(owner, message("call")) == [b"call"]
    # Whoever takes over from a tap that is gone may do so.
    site.now_ns += 6 * SECOND
    assert site.send(other, message("call")) == [b"call"]


def test_a_peer_beyond_its_limits_is_logged_once_a_minute(
    make: list[Site], zmq_context: Context
) -> None:
    site = site_with(make, zmq_context, messages_s=1)
    push = site.peer(2)
    with capture_logs() as logs:
        site.send(push, *[message("s")] * 10)
        site.now_ns += 61 * SECOND
        site.send(push, *[message("s")] * 2)
        site.now_ns += 61 * SECOND
        site.send(push, message("s"))
    told = [entry for entry in logs if entry["event"] == "limit.exceeded"]
    assert [(entry["peer"], entry["messages"]) for entry in told] == [
        ("127.0.0.2", 1),
        ("127.0.0.2", 8),
        ("127.0.0.2", 1),
    ]


def test_what_is_remembered_of_peers_and_streams_is_bounded(
    make: list[Site], zmq_context: Context
) -> None:
    site = site_with(make, zmq_context, streams=1)
    push = site.peer(2)
    site.send(push, message("first"), *(message(f"s{n}") for n in range(3000)))
    assert len(site.meter.refused()) == 1000
    assert site.meter.counts["limited.streams"] == 3000
