"""Asking for past events: the messages of the replay socket, and the cursor's bytes.

The README beside this module is the specification.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta, Struct

from serd.errors import MessageError

MAX_LIMIT: Final = 1000
"""Most events that one request brings, whatever it asks for."""
MAX_TOPIC: Final = 400
_MAX_ERROR: Final = 200
JOURNALLED_FROM: Final = 1 << 40
"""Cursors of a daemon with a journal are at least this, and go on from run to run; without one they
begin at 1 in every run."""

EVENT: Final = b"event"
DONE: Final = b"done"
ERROR: Final = b"error"

_CURSOR = struct.Struct(">Q")
_Cursor: TypeAlias = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class ReplayRequest(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which past events are wanted.

    Those with ``after < cursor < before`` whose topic begins with `topic`, oldest first, at most
    `limit`; with `last`, of these only the newest of each topic of a stream that is still open.
    """

    after: _Cursor = 0
    before: _Cursor | None = None
    topic: Annotated[str, Meta(max_length=MAX_TOPIC)] = ""
    limit: Annotated[int, Meta(ge=1, le=2**53 - 1)] = MAX_LIMIT
    last: bool = False


class ReplayDone(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """End of the answer to a request.

    `after` is what to ask with next if `more` is set. `expired` counts the events, of any topic,
    that came after the asked cursor and are no longer kept. With a journal `began` is the cursor
    before which it knows nothing, and `gaps` has the first and last cursors of events, after the
    asked one and up to `after`, that were published and are not kept.
    """

    run_id: str
    after: int
    more: bool
    oldest: int
    newest: int
    expired: int
    began: int = 0
    gaps: tuple[tuple[int, int], ...] = ()


class ReplayError(Struct, kw_only=True, frozen=True):
    """The request was refused."""

    code: str
    message: str


class StoredEvent(NamedTuple):
    """An event as it was published."""

    cursor: int
    topic: bytes
    payload: bytes


_encoder = msgspec.json.Encoder()
_request_decoder = msgspec.json.Decoder(ReplayRequest)
_done_decoder = msgspec.json.Decoder(ReplayDone)
_error_decoder = msgspec.json.Decoder(ReplayError)

pack_cursor = _CURSOR.pack


def unpack_cursor(part: bytes) -> int:
    """Cursor from the second part of an event message.

    Raises
    ------
    MessageError
        Code ``bad_cursor``: the part has not 8 bytes.
    """
    if len(part) != _CURSOR.size:
        raise MessageError("bad_cursor", f"a cursor has 8 bytes, not {len(part)}")
    cursor: int = _CURSOR.unpack(part)[0]
    return cursor


def encode_request(request: ReplayRequest) -> list[bytes]:
    """Parts of a request."""
    return [_encoder.encode(request)]


def decode_request(parts: Sequence[bytes]) -> ReplayRequest:
    """Read a request, as its parts came after the router's identity.

    Raises
    ------
    MessageError
        Code ``bad_request``.
    """
    if len(parts) != 1:
        raise MessageError("bad_request", f"a request has 1 part, not {len(parts)}")
    try:
        return _request_decoder.decode(parts[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # Names of the request's own are in it, of any length.
        raise MessageError("bad_request", f"request: {str(error)[:_MAX_ERROR]}") from None


def encode_reply(reply: StoredEvent | ReplayDone | ReplayError) -> list[bytes]:
    """Parts of one message of an answer."""
    if isinstance(reply, StoredEvent):
        return [EVENT, reply.topic, pack_cursor(reply.cursor), reply.payload]
    return [DONE if isinstance(reply, ReplayDone) else ERROR, _encoder.encode(reply)]


def decode_reply(parts: Sequence[bytes]) -> StoredEvent | ReplayDone | ReplayError:
    """Read one message of an answer.

    Raises
    ------
    MessageError
        Code ``bad_reply`` or ``bad_cursor``.
    """
    match parts:
        case [kind, topic, cursor, payload] if kind == EVENT:
            return StoredEvent(unpack_cursor(cursor), topic, payload)
        case [kind, body] if kind in (DONE, ERROR):
            try:
                if kind == DONE:
                    return _done_decoder.decode(body)
                return _error_decoder.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise MessageError("bad_reply", f"{kind.decode()} reply: {error}") from None
    raise MessageError("bad_reply", f"{len(parts)} parts are no event, done or error")
