"""Peers that open connections and do nothing good with them."""

from __future__ import annotations

import random
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from serd.protocol.replay import ReplayDone, ReplayRequest, decode_reply, encode_request
from tests.fakes import wait_until
from tests.faults.processes import Service, pushing
from tests.speech import demo_speech
from tests.taps import Collector, Push, blocks

RATE_HZ = 8000

# What a ZMTP 3 peer says first (RFC 23): signature, version 3.0, mechanism NULL, no server.
_GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def _ready(kind: bytes) -> bytes:
    body = b"\x05READY" + b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    return b"\x04" + bytes([len(body)]) + body


def _address(endpoint: str) -> tuple[str, int]:
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    return host, int(port)


def _is_served(service: Service, name: str) -> None:
    """A call is heard from its start to its end, and the replay socket answers."""
    collector = Collector(service.events, "")
    push = Push(service.pull)
    push.send(blocks(name, demo_speech(RATE_HZ)[: 3 * RATE_HZ], RATE_HZ, 100))
    collector.wait_closed([name])
    push.close()
    collector.close()
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(service.replay)
        dealer.send_multipart(encode_request(ReplayRequest(limit=1)))
        replies: list[object] = []
        while not any(isinstance(reply, ReplayDone) for reply in replies):
            assert dealer.poll(30_000), "the replay socket does not answer"
            replies.append(decode_reply(dealer.recv_multipart()))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path) as running:
        _is_served(running, "first")
        yield running


def _openings(rng: random.Random) -> bytes:
    """What a dropped connection said before: nothing, half of a greeting, all of it, or junk."""
    kind = rng.choice([b"PUSH", b"PUB", b"SUB", b"DEALER", b"REQ"])
    whole = _GREETING + _ready(kind)
    return rng.choice(
        [b"", _GREETING[: rng.randrange(64)], whole, rng.randbytes(200), b"GET / HTTP/1.1\r\n\r\n"]
    )


def test_ten_thousand_connections_opened_and_dropped(service: Service) -> None:
    rng = random.Random(20260101)
    ports = [_address(one) for one in (service.pull, service.sub, service.events, service.replay)]
    before = service.descriptors()
    memory: list[int] = []
    for _ in range(100):
        with ExitStack() as stack:
            for number in range(100):
                one = stack.enter_context(socket.create_connection(ports[number % 4], timeout=30))
                one.sendall(_openings(rng))
        memory.append(service.daemon.memory_kib())
    wait_until(lambda: service.descriptors() <= before, "the last of them to be let go", 60)
    _is_served(service, "afterwards")
    # A few hundred bytes kept of each would be more.
    settled = memory[len(memory) // 4]
    assert memory[-1] - settled < 100 + settled // 50, memory
    assert service.daemon.stop() == 0


def test_no_more_descriptors(service: Service) -> None:
    collector = Collector(service.events)
    with pushing(service.pull) as push, ExitStack() as crowd:
        speech = blocks("call", demo_speech(RATE_HZ), RATE_HZ, 100)
        for message in speech[:50]:
            push.send_multipart(message)
        wait_until(lambda: collector.of_type("stream"), "the call to be open")
        limit = service.descriptors() + 5
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (limit, limit))
        for endpoint in (service.pull, service.events, service.replay, service.sub):
            for _ in range(20):
                # The kernel accepts these, up to its own queue; the daemon cannot.
                crowd.enter_context(socket.create_connection(_address(endpoint), timeout=30))
        wait_until(lambda: service.descriptors() >= limit, "the descriptors to run out")
        # Those who were there are served as before.
        for message in speech[50:]:
            push.send_multipart(message)
        collector.wait_closed(["call"])
        assert service.descriptors() >= limit
        crowd.close()
        wait_until(lambda: service.descriptors() < limit, "room for others")
    _is_served(service, "afterwards")
    collector.close()
    assert service.daemon.stop() == 0


def test_what_is_no_zmtp_harms_nobody(service: Service) -> None:
    rng = random.Random(20260102)
    collector = Collector(service.events)
    with pushing(service.pull) as push:
        speech = blocks("call", demo_speech(RATE_HZ), RATE_HZ, 100)
        for number, message in enumerate(speech):
            push.send_multipart(message)
            endpoint = (service.pull, service.sub, service.events, service.replay)[number % 4]
            for junk in _junk(rng):
                with socket.create_connection(_address(endpoint), timeout=30) as one:
                    try:
                        one.sendall(junk)
                    except OSError:
                        # The daemon has hung up already, and is right.
                        continue
        collector.wait_closed(["call"])
    collector.close()
    assert not [event for event in collector.events if event["type"] == "gap"]
    _is_served(service, "afterwards")
    assert service.daemon.stop() == 0


def _junk(rng: random.Random) -> list[bytes]:
    """What no peer should say after its greeting, or instead of it."""
    hello = _GREETING + _ready(rng.choice([b"PUSH", b"SUB", b"DEALER", b"PUB"]))
    bent = bytearray(hello + b"\x00\x05hello")
    for _ in range(rng.randrange(1, 5)):
        bent[rng.randrange(len(bent))] = rng.randrange(256)
    endless = hello + b"\x01\x00" * rng.randrange(1, 2000)
    huge = hello + b"\x02" + rng.choice([2**63 - 1, 2**62, 2**40, 2**24 + 1]).to_bytes(8, "big")
    command = hello + bytes([0x04, 20]) + b"\x04PING" + rng.randbytes(15)
    subscribe = hello + b"\x00\xff" + b"\x01" + rng.randbytes(254)
    return [rng.randbytes(rng.randrange(1, 3000)), bytes(bent), endless, huge, command, subscribe]
