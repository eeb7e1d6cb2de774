"""Boundaries between messages, whatever peers send."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serd.protocol.tap import Header, encode_header
from serd.sources.burst import Burst, receive_burst
from serd.types import Encoding
from tests.fakes import wait_until

Context = zmq.Context[zmq.Socket[bytes]]
Message = tuple[bytes, ...]


@contextmanager
def _pair(context: Context) -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """PUSH and PULL in one process: what is sent is there at once."""
    with context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        endpoint = f"inproc://{uuid.uuid4()}"
        pull.bind(endpoint)
        push.connect(endpoint)
        yield push, pull


def _drain(pull: zmq.Socket[bytes], most: int) -> tuple[list[Message], list[list[bytes]]]:
    whole: list[Message] = []
    odd: list[list[bytes]] = []
    while True:
        burst, strange, drained = receive_burst(pull, most)
        assert len(burst) <= most
        whole += [burst.parts(number) for number in range(len(burst))]
        odd += strange
        if drained:
            return whole, odd


def _good(sequence: int, payload: bytes = b"audio") -> Message:
    header = Header(Encoding.MULAW, 1, 0, 8000, sequence, 0, 0)
    return b"call", encode_header(header), payload


_good_messages = st.builds(
    _good, st.integers(0, 2**32 - 1), st.sampled_from([b"", b"\xff" * 160, b"call", b"x" * 70_000])
)
# Parts as in good messages among them, so that a reader could mistake one for another.
_any_part = st.one_of(st.binary(max_size=40), st.just(b"call"), st.just(_good(1)[1]))
_bad_messages = st.one_of(
    st.lists(_any_part, min_size=1, max_size=2),
    st.lists(_any_part, min_size=4, max_size=9),
).map(tuple)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.one_of(_good_messages, _good_messages, _bad_messages), max_size=20),
    st.integers(1, 8),
)
def test_messages_are_told_apart_by_their_number_of_parts(
    zmq_context: Context, messages: list[Message], most: int
) -> None:
    with _pair(zmq_context) as (push, pull):
        for message in messages:
            push.send_multipart(message)
        whole, odd = _drain(pull, most)
    assert whole == [message for message in messages if len(message) == 3]
    assert odd == [list(message) for message in messages if len(message) != 3]


@pytest.mark.parametrize("size", [1, 2, 4, 5, 7])
def test_a_message_of_another_number_of_parts_is_odd(zmq_context: Context, size: int) -> None:
    with _pair(zmq_context) as (push, pull):
        push.send_multipart(_good(1))
        push.send_multipart([b"part"] * size)
        push.send_multipart(_good(2))
        whole, odd = _drain(pull, 100)
    assert whole == [_good(1), _good(2)]
    assert odd == [[b"part"] * size]


def test_nothing_there_is_an_empty_burst(zmq_context: Context) -> None:
    with _pair(zmq_context) as (_, pull):
        burst, odd, drained = receive_burst(pull, 10)
    assert (len(burst), odd, drained) == (0, [], True)


def test_a_burst_forgets_what_was_taken() -> None:
    burst = Burst([b"a", b"b"], [b"1", b"2"], [b"x", b"y"])
    burst.drop(1)
    assert len(burst) == 1
    assert burst.parts(0) == (b"b", b"2", b"y")


def test_over_tcp_from_several_peers_no_message_is_torn(zmq_context: Context) -> None:
    with zmq_context.socket(zmq.PULL) as pull:
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        peers = [zmq_context.socket(zmq.PUSH) for _ in range(3)]
        for peer in peers:
            peer.connect(f"tcp://127.0.0.1:{port}")
        sent = [_good(number, bytes([number]) * 300) for number in range(60)]
        for message in sent:
            peers[0].send_multipart(message)
            peers[1].send_multipart([b"alone"])
            peers[2].send_multipart([b"call", message[1]])
        whole: list[Message] = []

        def received() -> bool:
            whole.extend(_drain(pull, 7)[0])
            return len(whole) >= len(sent)

        wait_until(received, "all good messages")
        for peer in peers:
            peer.close()
    assert whole == sent
