"""Audio in, version 1: the messages that a tap sends, and their bytes.

The README beside this module is the specification. A message is a ZeroMQ multipart message of
three parts: stream id, header, payload.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from enum import IntFlag
from functools import lru_cache
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta, Struct

from serd.errors import MessageError
from serd.types import Encoding, Role

MAGIC: Final = b"SRD1"
HEADER_BYTES: Final = 32
MAX_ID_BYTES: Final = 200
MAX_CHANNELS: Final = 8
MIN_SAMPLE_RATE_HZ: Final = 8000
MAX_SAMPLE_RATE_HZ: Final = 48000
MAX_PAYLOAD_BYTES: Final = 1 << 20
MAX_SAMPLE: Final = 2**53 - 1
"""Largest sample index: the largest integer that every JSON reader keeps exact."""
MAX_TIME_NS: Final = 2**63 - 1
SEQUENCE_MODULUS: Final = 2**32

MAX_CALL_ID: Final = 200
MAX_LANGUAGE: Final = 35
MAX_LABELS: Final = 32
MAX_LABEL_NAME: Final = 64
MAX_LABEL_VALUE: Final = 256

REASONS: Final = (
    "wrong_part_count",
    "id_empty",
    "id_too_long",
    "id_not_utf8",
    "id_control_character",
    "header_length",
    "bad_magic",
    "unknown_encoding",
    "bad_channels",
    "unknown_flags",
    "conflicting_flags",
    "bad_sample_rate",
    "first_sample_range",
    "captured_at_range",
    "payload_too_large",
    "ragged_payload",
    "payload_without_encoding",
    "metadata_with_encoding",
    "metadata_not_json",
    "metadata_shape",
    "metadata_roles_count",
    "not_finite",
)
"""Every code under which a tap message is refused.

All but the last come from `decode_message`; ``not_finite`` is found when f32le samples are
decoded.
"""

_HEADER = struct.Struct("<4sBBHIIQQ")
_SAMPLE_BYTES = tuple(encoding.sample_bytes for encoding in Encoding)
_ENCODINGS = tuple(Encoding)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NO_CONTROL: Final = r"\A[^\x00-\x1f\x7f-\x9f]*\Z"

Buffer: TypeAlias = bytes | bytearray | memoryview


class Flag(IntFlag):
    """Bits of the header field ``flags``."""

    NONE = 0
    START = 1
    END = 2
    DISCONTINUITY = 4
    PAUSE = 8
    RESUME = 16
    METADATA = 32


_ALL_FLAGS: Final = 63
_PAUSE_RESUME: Final = int(Flag.PAUSE | Flag.RESUME)
_METADATA: Final = int(Flag.METADATA)


class Header(NamedTuple):
    """Header of a tap message.

    `flags` may be given as a plain int; comparing and masking it works the same.
    """

    encoding: Encoding
    channels: int
    flags: int
    sample_rate_hz: int
    sequence: int
    first_sample: int
    captured_at_ns: int


_Text: TypeAlias = Annotated[str, Meta(pattern=_NO_CONTROL)]
_Labels: TypeAlias = Annotated[
    dict[
        Annotated[_Text, Meta(min_length=1, max_length=MAX_LABEL_NAME)],
        Annotated[_Text, Meta(max_length=MAX_LABEL_VALUE)],
    ],
    Meta(max_length=MAX_LABELS),
]


class _Description(Struct, kw_only=True, frozen=True, omit_defaults=True):
    call_id: Annotated[_Text, Meta(max_length=MAX_CALL_ID)] | None = None
    language: Annotated[_Text, Meta(max_length=MAX_LANGUAGE)] | None = None
    labels: _Labels | None = None
    consent: bool | None = None


class Metadata(_Description, kw_only=True, frozen=True, omit_defaults=True):
    """What a tap says about a stream, in a message with the metadata flag. All optional.

    `roles` has one entry a channel; None stands for one that does not exist, which is as good as
    the worst. `consent` tells whether those who speak have agreed to be analysed.
    """

    roles: tuple[Role | None, ...] | None = None


class _RawMetadata(_Description, kw_only=True, frozen=True):
    roles: list[str | None] | None = None


class TapMessage(NamedTuple):
    """A well-formed tap message; `metadata` is there when its flag is set."""

    stream: str
    header: Header
    payload: Buffer
    metadata: Metadata | None

    @property
    def samples(self) -> int:
        """Samples per channel in the payload."""
        header = self.header
        sample_bytes = 0 if header.flags & _METADATA else _SAMPLE_BYTES[header.encoding]
        return len(self.payload) // (sample_bytes * header.channels) if sample_bytes else 0


def encode_header(header: Header) -> bytes:
    """The 32 bytes of a header.

    Raises
    ------
    MessageError
        A field is outside what the specification allows.
    ValueError
        A field does not fit into its bits.
    """
    try:
        encoded = _HEADER.pack(MAGIC, *header)
    except struct.error as error:
        raise ValueError(f"header field out of its type's range: {error}") from None
    decode_header(encoded)
    return encoded


def decode_header(header: Buffer) -> Header:
    """Read and check the 32 bytes of a header.

    Raises
    ------
    MessageError
        Codes ``header_length``, ``bad_magic``, ``unknown_encoding``, ``bad_channels``,
        ``unknown_flags``, ``conflicting_flags``, ``bad_sample_rate``, ``first_sample_range``,
        ``captured_at_range``.
    """
    if len(header) != HEADER_BYTES:
        raise MessageError("header_length", f"the header has {len(header)} bytes, not 32")
    magic, encoding, channels, flags, rate, sequence, first, captured = _HEADER.unpack(header)
    if magic != MAGIC:
        raise MessageError("bad_magic", f"the header begins with {magic!r}, not {MAGIC!r}")
    if encoding > Encoding.F32LE:
        raise MessageError("unknown_encoding", f"encoding {encoding} is not 0 to 4")
    if not 1 <= channels <= MAX_CHANNELS:
        raise MessageError("bad_channels", f"{channels} channels; 1 to {MAX_CHANNELS} are allowed")
    if flags > _ALL_FLAGS:
        raise MessageError("unknown_flags", f"flags {flags:#06x} has bits above {_ALL_FLAGS:#x}")
    if flags & _PAUSE_RESUME == _PAUSE_RESUME:
        raise MessageError("conflicting_flags", "a message cannot both pause and resume")
    if not MIN_SAMPLE_RATE_HZ <= rate <= MAX_SAMPLE_RATE_HZ:
        raise MessageError(
            "bad_sample_rate",
            f"{rate} Hz; {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz are allowed",
        )
    if first > MAX_SAMPLE:
        raise MessageError("first_sample_range", f"first_sample {first} is above {MAX_SAMPLE}")
    if captured > MAX_TIME_NS:
        raise MessageError("captured_at_range", f"captured_at_ns {captured} is above 2**63 - 1")
    return Header(_ENCODINGS[encoding], channels, flags, rate, sequence, first, captured)


@lru_cache(maxsize=8192)
def decode_stream_id(part: bytes) -> str:
    """Read and check a stream id.

    Raises
    ------
    MessageError
        Codes ``id_empty``, ``id_too_long``, ``id_not_utf8``, ``id_control_character``.
    """
    if not part:
        raise MessageError("id_empty", "the stream id is empty")
    if len(part) > MAX_ID_BYTES:
        raise MessageError(
            "id_too_long", f"the stream id has {len(part)} bytes; {MAX_ID_BYTES} are allowed"
        )
    try:
        stream = part.decode()
    except UnicodeDecodeError:
        raise MessageError("id_not_utf8", f"the stream id {part[:40]!r} is not UTF-8") from None
    if _CONTROL.search(stream):
        raise MessageError(
            "id_control_character", f"the stream id {stream[:40]!r} has control characters"
        )
    return stream


def decode_message(parts: Sequence[Buffer]) -> TapMessage:
    """Read and check a tap message; the payload is passed on as it is, not copied.

    Parameters
    ----------
    parts
        The parts of the multipart message.

    Raises
    ------
    MessageError
        Whatever is wrong, with a code of `REASONS`; no other exception leaves.
    """
    message = decode_frame(parts)
    if not message.header.flags & _METADATA:
        return message
    return message._replace(metadata=read_metadata(message.header, message.payload))


def decode_frame(parts: Sequence[Buffer]) -> TapMessage:
    """As `decode_message`, but leave metadata unread: whose message it is holds without it.

    Raises
    ------
    MessageError
        Whatever is wrong with anything but the metadata.
    """
    if len(parts) != 3:
        raise MessageError(
            "wrong_part_count", f"{len(parts)} parts; stream id, header and payload are 3"
        )
    raw_id, raw_header, payload = parts
    if len(raw_id) > MAX_ID_BYTES:
        raise MessageError(
            "id_too_long", f"the stream id has {len(raw_id)} bytes; {MAX_ID_BYTES} are allowed"
        )
    stream = decode_stream_id(raw_id if type(raw_id) is bytes else bytes(raw_id))
    header = decode_header(raw_header)
    size = len(payload)
    if size > MAX_PAYLOAD_BYTES:
        raise MessageError(
            "payload_too_large", f"the payload has {size} bytes; {MAX_PAYLOAD_BYTES} are allowed"
        )
    if header.flags & _METADATA:
        return TapMessage(stream, header, payload, None)
    sample_bytes = _SAMPLE_BYTES[header.encoding]
    if not sample_bytes:
        if size:
            raise MessageError(
                "payload_without_encoding",
                f"{size} bytes of payload, but encoding 0 and no metadata flag",
            )
        return TapMessage(stream, header, payload, None)
    frames, rest = divmod(size, sample_bytes * header.channels)
    if rest:
        raise MessageError(
            "ragged_payload",
            f"{size} bytes are not a whole number of {header.channels}-channel frames of "
            f"{header.encoding.name.lower()}",
        )
    if header.first_sample + frames > MAX_SAMPLE:
        raise MessageError(
            "first_sample_range", f"the samples from {header.first_sample} go above {MAX_SAMPLE}"
        )
    return TapMessage(stream, header, payload, None)


def pause_in_vain(parts: Sequence[Buffer]) -> int | None:
    """Sequence of a malformed message that asks for a pause, as far as it can be read; or None.

    Who asks not to be analysed is heard even if the rest of what they say is wrong.
    """
    if len(parts) < 2 or len(parts[1]) != HEADER_BYTES:
        return None
    magic, _, _, flags, _, sequence, _, _ = _HEADER.unpack(parts[1])
    return int(sequence) if magic == MAGIC and flags & Flag.PAUSE else None


_metadata_encoder = msgspec.json.Encoder()
_ROLES = {role.value: role for role in Role}


def read_metadata(header: Header, payload: Buffer) -> Metadata:
    """Metadata of a message with that flag.

    Raises
    ------
    MessageError
        Code ``metadata_with_encoding``, and those of `parse_metadata`.
    """
    if header.encoding:
        raise MessageError(
            "metadata_with_encoding",
            f"a metadata message has encoding 0, not {int(header.encoding)}",
        )
    return parse_metadata(payload, header.channels)


def parse_metadata(payload: Buffer, channels: int) -> Metadata:
    """Read the JSON of a metadata message; keys that it does not know are skipped.

    A role that does not exist becomes None. Several roles on one channel are those of all who
    speak on it: `Role.MIXED` unless they are the same.

    Raises
    ------
    MessageError
        Codes ``metadata_not_json``, ``metadata_shape`` (a value of the wrong type, too long, or
        with control characters), ``metadata_roles_count``.
    """
    try:
        # All of it is read first: a typed decoder does not look into the keys that it skips.
        raw = msgspec.convert(msgspec.json.decode(payload), _RawMetadata)
    except msgspec.ValidationError as error:
        raise MessageError("metadata_shape", f"metadata: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError("metadata_not_json", f"metadata is not JSON: {error}") from None
    return Metadata(
        call_id=raw.call_id,
        language=raw.language,
        labels=raw.labels,
        consent=raw.consent,
        roles=None if raw.roles is None else _roles(raw.roles, channels),
    )


def _roles(named: list[str | None], channels: int) -> tuple[Role | None, ...]:
    roles = tuple(_ROLES.get(role or "") for role in named)
    if channels == 1 and roles:
        if None in roles or len(set(roles)) == 1:
            return (None,) if None in roles else roles[:1]
        return (Role.MIXED,)
    if len(roles) != channels:
        raise MessageError("metadata_roles_count", f"{len(roles)} roles for {channels} channels")
    return roles


def encode_metadata(metadata: Metadata) -> bytes:
    """JSON of the metadata, without the fields that are not set."""
    return _metadata_encoder.encode(metadata)
