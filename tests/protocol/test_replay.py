"""Messages of the replay socket."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.errors import MessageError
from serd.protocol.replay import (
    ReplayDone,
    ReplayError,
    ReplayRequest,
    StoredEvent,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    pack_cursor,
    unpack_cursor,
)

cursors = st.integers(0, 2**53 - 1)
requests = st.builds(
    ReplayRequest,
    after=cursors,
    before=st.none() | cursors,
    topic=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    limit=st.integers(1, 10_000),
    last=st.booleans(),
)
replies = st.one_of(
    st.builds(StoredEvent, cursor=cursors, topic=st.binary(), payload=st.binary()),
    st.builds(
        ReplayDone,
        run_id=st.text("0123456789abcdef", min_size=16, max_size=16),
        after=cursors,
        more=st.booleans(),
        oldest=cursors,
        newest=cursors,
        expired=cursors,
    ),
    st.builds(ReplayError, code=st.just("bad_request"), message=st.just("no")),
)


def test_a_cursor_is_big_endian() -> None:
    assert pack_cursor(1042) == b"\x00\x00\x00\x00\x00\x00\x04\x12"
    assert unpack_cursor(b"\x00\x00\x00\x00\x00\x00\x04\x12") == 1042


def test_the_request_of_the_specification_is_understood() -> None:
    request = decode_request([b'{"after": 1042, "topic": "emotion.", "limit": 10}'])
    assert request == ReplayRequest(after=1042, topic="emotion.", limit=10)
    assert decode_request([b"{}"]) == ReplayRequest()


def test_an_event_reply_is_these_parts() -> None:
    reply = StoredEvent(1042, b"emotion.a", b"{}")
    assert encode_reply(reply) == [b"event", b"emotion.a", bytes.fromhex("0000000000000412"), b"{}"]


@given(requests)
def test_any_request_round_trips(request: ReplayRequest) -> None:
    assert decode_request(encode_request(request)) == request


@given(replies)
def test_any_reply_round_trips(reply: StoredEvent | ReplayDone | ReplayError) -> None:
    assert decode_reply(encode_reply(reply)) == reply


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"{}", b"{}"],
        [b""],
        [b"[]"],
        [b'{"after":-1}'],
        [b'{"after":"1"}'],
        [b'{"limit":0}'],
        [b'{"afer":1}'],
        [b'{"topic":"' + b"a" * 401 + b'"}'],
        [b'{"after":9007199254740992}'],
    ],
)
def test_malformed_requests_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(MessageError) as caught:
        decode_request(parts)
    assert caught.value.code == "bad_request"


def refusals(parts: list[bytes]) -> set[str]:
    codes = set()
    for decode in (decode_request, decode_reply):
        try:
            decode(parts)
        except MessageError as error:
            codes.add(error.code)
    return codes


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_arbitrary_requests_and_replies_raise_nothing_else(parts: list[bytes]) -> None:
    assert refusals(parts) <= {"bad_request", "bad_reply", "bad_cursor"}


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=3))
def test_arbitrary_json_raises_nothing_else(value: object) -> None:
    body = json.dumps({"after": value, "limit": value}).encode()
    for parts in ([body], [b"done", body], [b"error", body], [b"event", b"", body, b""]):
        assert refusals(parts) <= {"bad_request", "bad_reply", "bad_cursor"}
