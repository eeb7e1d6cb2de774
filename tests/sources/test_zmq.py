from __future__ import annotations

from collections.abc import Sequence

import pytest
import zmq

from serd.channel import Waker
from serd.curve import CurveKeys, Door
from serd.errors import BindError
from serd.sources.burst import Burst
from serd.sources.zmq import ZmqOptions, ZmqSource
from serd.types import Role
from tests.fakes import wait_until

Context = zmq.Context[zmq.Socket[bytes]]


class FakeIntake:
    """Takes messages until told to refuse them."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, ...]] = []
        self.roles: Sequence[Role] = ()
        self.room = True

    def message(
        self, source: object, parts: Sequence[bytes], roles: Sequence[Role], now_ns: int
    ) -> bool:
        self.roles = roles
        if self.room:
            self.taken.append(tuple(parts))
        return self.room

    def messages(self, source: object, burst: Burst, roles: Sequence[Role], now_ns: int) -> int:
        taken = 0
        while taken < len(burst) and self.message(source, burst.parts(taken), roles, now_ns):
            taken += 1
        return taken


def _service_until(source: ZmqSource, intake: FakeIntake, count: int) -> None:
    def served() -> bool:
        source.service(0, intake)  # type: ignore[arg-type]  # only messages are taken
        return len(intake.taken) >= count

    wait_until(served, f"{count} messages")


def test_pull_binds_and_takes_from_several_endpoints(zmq_context: Context) -> None:
    source = ZmqSource(
        ZmqOptions("in", "PULL", bind=("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")), zmq_context
    )
    source.open(Waker())
    intake = FakeIntake()
    with zmq_context.socket(zmq.PUSH) as first, zmq_context.socket(zmq.PUSH) as second:
        for number, push in enumerate((first, second)):
            push.connect(source.endpoints[number])
            push.send_multipart([b"id", b"header", b"%d" % number])
        _service_until(source, intake, 2)
    assert sorted(parts[2] for parts in intake.taken) == [b"0", b"1"]
    assert source.counts()["received"] == 2
    assert source.lossless
    source.close()


def test_pull_can_connect_to_a_tap_that_binds(zmq_context: Context) -> None:
    push = zmq_context.socket(zmq.PUSH)
    port = push.bind_to_random_port("tcp://127.0.0.1")
    source = ZmqSource(
        ZmqOptions("in", "PULL", connect=(f"tcp://127.0.0.1:{port}",), roles=(Role.CUSTOMER,)),
        zmq_context,
    )
    source.open(Waker())
    push.send_multipart([b"id", b"header", b"payload"])
    intake = FakeIntake()
    _service_until(source, intake, 1)
    assert intake.roles == (Role.CUSTOMER,)
    source.close()
    push.close()


def test_sub_filters_by_the_prefix_of_the_stream_id(zmq_context: Context) -> None:
    publisher = zmq_context.socket(zmq.XPUB)
    port = publisher.bind_to_random_port("tcp://127.0.0.1")
    source = ZmqSource(
        ZmqOptions(
            "in", "SUB", connect=(f"tcp://127.0.0.1:{port}",), subscribe=("sales-", "desk-")
        ),
        zmq_context,
    )
    source.open(Waker())
    assert not source.lossless
    assert {publisher.recv(), publisher.recv()} == {b"\1sales-", b"\1desk-"}
    for stream in (b"sales-1", b"other-1", b"desk-1"):
        publisher.send_multipart([stream, b"header", b"payload"])
    intake = FakeIntake()
    _service_until(source, intake, 2)
    assert [parts[0] for parts in intake.taken] == [b"sales-1", b"desk-1"]
    source.close()
    publisher.close()


def test_a_message_without_room_is_held_and_comes_first_later(zmq_context: Context) -> None:
    source = ZmqSource(ZmqOptions("in", "PULL", bind=("tcp://127.0.0.1:*",)), zmq_context)
    source.open(Waker())
    push = zmq_context.socket(zmq.PUSH)
    push.connect(source.endpoints[0])
    for number in range(3):
        push.send_multipart([b"id", b"header", b"%d" % number])
    intake = FakeIntake()
    intake.room = False

    def held() -> bool:
        source.service(0, intake)  # type: ignore[arg-type]  # only messages are taken
        return source.counts().get("waits", 0) == 1

    wait_until(held, "a message to be held")
    assert source.pollables() == []
    intake.room = True
    _service_until(source, intake, 3)
    assert [parts[2] for parts in intake.taken] == [b"0", b"1", b"2"]
    assert len(source.pollables()) == 1
    source.close()
    push.close()


def test_an_endpoint_in_use_is_an_error_that_names_it(zmq_context: Context) -> None:
    taken = zmq_context.socket(zmq.PULL)
    port = taken.bind_to_random_port("tcp://127.0.0.1")
    source = ZmqSource(ZmqOptions("phones", "PULL", bind=(f"tcp://127.0.0.1:{port}",)), zmq_context)
    with pytest.raises(BindError, match=f"source phones: cannot bind tcp://127.0.0.1:{port}") as e:
        source.open(Waker())
    assert e.value.code == "bind_failed"
    taken.close()


def test_a_tap_that_is_connected_to_has_to_prove_its_key(zmq_context: Context) -> None:
    daemon, tap, impostor = (CurveKeys.generate() for _ in range(3))
    taps = []
    for keys in (tap, impostor):
        push = zmq_context.socket(zmq.PUSH)
        push.linger = 0
        push.curve_publickey, push.curve_secretkey = keys.public.encode(), keys.secret.encode()
        push.curve_server = True
        taps.append((push, push.bind_to_random_port("tcp://127.0.0.1")))
    source = ZmqSource(
        ZmqOptions(
            "in",
            "PULL",
            connect=tuple(f"tcp://127.0.0.1:{port}" for _, port in reversed(taps)),
            server_keys=(tap.public,),
        ),
        zmq_context,
        Door(daemon),
    )
    source.open(Waker())
    (honest, _), (other, _) = taps
    monitor = other.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
    honest.send_multipart([b"id", b"header", b"honest"])
    intake = FakeIntake()
    _service_until(source, intake, 1)
    assert monitor.poll(20_000), "the impostor was let in"
    assert not other.poll(0, zmq.POLLOUT)
    assert [parts[2] for parts in intake.taken] == [b"honest"]
    other.disable_monitor()
    monitor.close()
    source.close()
    for push, _ in taps:
        push.close()


def test_keys_are_those_of_the_endpoints_in_their_order(zmq_context: Context) -> None:
    daemon, one, two = (CurveKeys.generate() for _ in range(3))
    endpoints = []
    sockets = []
    for keys in (one, two):
        push = zmq_context.socket(zmq.PUSH)
        push.linger = 0
        push.curve_publickey, push.curve_secretkey = keys.public.encode(), keys.secret.encode()
        push.curve_server = True
        endpoints.append(f"tcp://127.0.0.1:{push.bind_to_random_port('tcp://127.0.0.1')}")
        sockets.append(push)
    source = ZmqSource(
        ZmqOptions("in", "PULL", connect=tuple(endpoints), server_keys=(one.public, two.public)),
        zmq_context,
        Door(daemon),
    )
    source.open(Waker())
    for push in sockets:
        push.send_multipart([b"id", b"header", b""])
    intake = FakeIntake()
    _service_until(source, intake, 2)
    source.close()
    for push in sockets:
        push.close()
