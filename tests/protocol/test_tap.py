"""Tap messages: their bytes, their limits, and what is refused."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.errors import MessageError
from serd.protocol.tap import (
    MAX_LABELS,
    MAX_PAYLOAD_BYTES,
    MAX_SAMPLE,
    MAX_TIME_NS,
    REASONS,
    Flag,
    Header,
    Metadata,
    decode_header,
    decode_message,
    encode_header,
    encode_metadata,
    parse_metadata,
)
from serd.protocol.writer import TapWriter
from serd.types import Encoding, Role

GOLDEN_HEADER = Header(
    encoding=Encoding.MULAW,
    channels=2,
    flags=Flag.START | Flag.DISCONTINUITY,
    sample_rate_hz=8000,
    sequence=0x01020304,
    first_sample=0x001122334455667,
    captured_at_ns=0x18A2B3C4D5E6F708,
)
GOLDEN_BYTES = bytes.fromhex(
    "53524431"  # magic SRD1
    "02"  # encoding
    "02"  # channels
    "0500"  # flags
    "401f0000"  # sample_rate_hz
    "04030201"  # sequence
    "6756453423120100"  # first_sample
    "08f7e6d5c4b3a218"  # captured_at_ns
)


def fields(**changes: int) -> bytes:
    """A header with fields that the encoder would refuse."""
    values: dict[str, Any] = {
        "magic": b"SRD1",
        "encoding": 1,
        "channels": 1,
        "flags": 0,
        "sample_rate_hz": 8000,
        "sequence": 0,
        "first_sample": 0,
        "captured_at_ns": 0,
    } | changes
    return struct.pack("<4sBBHIIQQ", *values.values())


def metadata_parts(payload: bytes, channels: int = 1, encoding: int = 0) -> list[bytes]:
    return [b"a", fields(encoding=encoding, flags=Flag.METADATA, channels=channels), payload]


def test_the_header_is_these_bytes() -> None:
    assert encode_header(GOLDEN_HEADER) == GOLDEN_BYTES
    assert decode_header(GOLDEN_BYTES) == GOLDEN_HEADER


def test_an_audio_message_is_these_parts() -> None:
    writer = TapWriter("gespräch-1", 8000, Encoding.S16LE, sequence=7, first_sample=160)
    assert writer.audio(np.array([1, -2], np.int16), captured_at_ns=1) == [
        b"gespr\xc3\xa4ch-1",
        bytes.fromhex("53524431 01 01 0000 401f0000 07000000 a000000000000000 0100000000000000"),
        b"\x01\x00\xfe\xff",
    ]


def test_a_metadata_message_is_these_parts() -> None:
    writer = TapWriter("a", 16000, Encoding.ALAW, channels=2)
    roles = (Role.AGENT, Role.CUSTOMER)
    parts = writer.start(Metadata(call_id="c1", roles=roles, language="de", labels={"k": "v"}))
    assert parts[1] == bytes.fromhex(
        "53524431 00 02 2100 803e0000 00000000 0000000000000000 0000000000000000"
    )
    assert json.loads(parts[2]) == {
        "call_id": "c1",
        "roles": ["agent", "customer"],
        "language": "de",
        "labels": {"k": "v"},
    }


headers = st.builds(
    Header,
    encoding=st.sampled_from(Encoding),
    channels=st.integers(1, 8),
    flags=st.integers(0, 63).filter(lambda flags: flags & 24 != 24),
    sample_rate_hz=st.integers(8000, 48000),
    sequence=st.integers(0, 2**32 - 1),
    first_sample=st.integers(0, MAX_SAMPLE),
    captured_at_ns=st.integers(0, MAX_TIME_NS),
)

no_control = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=40)
metadata = st.builds(
    Metadata,
    call_id=st.none() | no_control,
    language=st.none() | st.sampled_from(["de", "en-GB"]),
    labels=st.none() | st.dictionaries(no_control.filter(bool), no_control, max_size=4),
    roles=st.none() | st.tuples(st.sampled_from(Role), st.sampled_from(Role)),
)
stream_ids = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=50)


@given(headers)
def test_any_header_round_trips(header: Header) -> None:
    assert decode_header(encode_header(header)) == header


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    header = draw(headers)
    if header.flags & Flag.METADATA:
        header = header._replace(encoding=Encoding.NONE, channels=2)
        payload = encode_metadata(draw(metadata))
    elif header.encoding is Encoding.NONE:
        payload = b""
    else:
        frame = header.encoding.sample_bytes * header.channels
        frames = draw(st.integers(0, 20))
        header = header._replace(first_sample=min(header.first_sample, MAX_SAMPLE - frames))
        payload = draw(st.binary(min_size=frame * frames, max_size=frame * frames))
    return [draw(stream_ids).encode(), encode_header(header), payload]


@given(messages())
def test_any_message_round_trips(parts: list[bytes]) -> None:
    message = decode_message(parts)
    again = [message.stream.encode(), encode_header(message.header), bytes(message.payload)]
    assert again == parts
    if message.metadata is not None:
        assert parse_metadata(encode_metadata(message.metadata), 2) == message.metadata


@given(messages())
def test_memory_views_are_read_like_bytes(parts: list[bytes]) -> None:
    assert decode_message([memoryview(part) for part in parts]) == decode_message(parts)


def valid_by_the_specification(parts: list[bytes]) -> bool:
    """The README's rules once more, written without a look at the decoder."""
    if len(parts) != 3:
        return False
    name, raw, payload = parts
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return False
    if not 1 <= len(name) <= 200 or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
        return False
    if len(raw) != 32 or raw[:4] != b"SRD1" or len(payload) > 1024 * 1024:
        return False
    encoding, channels = raw[4], raw[5]
    flags = int.from_bytes(raw[6:8], "little")
    rate = int.from_bytes(raw[8:12], "little")
    first = int.from_bytes(raw[16:24], "little")
    captured = int.from_bytes(raw[24:32], "little")
    if encoding > 4 or not 1 <= channels <= 8 or flags > 63 or (flags & 8 and flags & 16):
        return False
    if not 8000 <= rate <= 48000 or first >= 2**53 or captured >= 2**63:
        return False
    if flags & 32:
        return encoding == 0 and valid_metadata(payload, channels)
    if encoding == 0:
        return payload == b""
    frame = {1: 2, 2: 1, 3: 1, 4: 4}[encoding] * channels
    return len(payload) % frame == 0 and first + len(payload) // frame < 2**53


def valid_metadata(payload: bytes, channels: int) -> bool:
    def text(value: object, most: int) -> bool:
        return (
            isinstance(value, str)
            and len(value) <= most
            and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value)
        )

    try:
        value = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    if not isinstance(value, dict):
        return False
    call_id, language = value.get("call_id"), value.get("language")
    roles, labels = value.get("roles"), value.get("labels")
    consent = value.get("consent")
    return (
        (call_id is None or text(call_id, 200))
        and (language is None or text(language, 35))
        and (
            roles is None
            or (
                isinstance(roles, list)
                and (len(roles) == channels or (channels == 1 and len(roles) > 1))
                and all(role is None or isinstance(role, str) for role in roles)
            )
        )
        and (consent is None or isinstance(consent, bool))
        and (
            labels is None
            or (
                isinstance(labels, dict)
                and len(labels) <= 32
                and all(k and text(k, 64) and text(v, 256) for k, v in labels.items())
            )
        )
    )


def refusal(parts: list[bytes]) -> MessageError | None:
    try:
        decode_message(parts)
    except MessageError as error:
        return error
    return None


def check(parts: list[bytes]) -> None:
    """Accepted if and only if valid; refused with a known code; nothing else leaves."""
    error = refusal(parts)
    assert (error is None) == valid_by_the_specification(parts)
    if error is not None:
        assert error.code in REASONS
        assert error.message


@given(messages(), st.data())
def test_a_mutated_message_is_valid_or_refused_with_a_reason(
    parts: list[bytes], data: st.DataObject
) -> None:
    parts = list(parts)
    for _ in range(data.draw(st.integers(1, 4), "mutations")):
        which = data.draw(st.sampled_from([0, 1, 1, 1, 2]), "part") % max(len(parts), 1)
        how = data.draw(st.sampled_from(["flip", "cut", "grow", "drop", "double"]), "how")
        if not parts:
            break
        part = bytearray(parts[which])
        at = data.draw(st.integers(0, max(len(part) - 1, 0)), "at")
        if how == "flip" and part:
            part[at] = data.draw(st.integers(0, 255), "byte")
        elif how == "cut":
            del part[at:]
        elif how == "grow":
            part[at:at] = data.draw(st.binary(max_size=210), "more")
        elif how == "drop":
            del parts[which]
            continue
        elif how == "double":
            parts.insert(which, bytes(part))
            continue
        parts[which] = bytes(part)
    check(parts)


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_arbitrary_parts_are_refused_with_a_reason(parts: list[bytes]) -> None:
    check(parts)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["call_id", "roles", "language", "labels", "consent", "later"]),
        json_values
        | st.text(max_size=40)
        | st.lists(st.sampled_from(["agent", "self", "Agent"]), max_size=3)
        | st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
    )
    | json_values,
    st.integers(1, 3),
)
def test_any_json_as_metadata_is_valid_or_refused(value: object, channels: int) -> None:
    check(metadata_parts(json.dumps(value).encode(), channels))


@given(st.binary(max_size=60))
def test_any_bytes_as_metadata_are_valid_or_refused(payload: bytes) -> None:
    check(metadata_parts(payload))


REFUSED: list[tuple[str, list[bytes]]] = [
    ("wrong_part_count", []),
    ("wrong_part_count", [b"a", fields()]),
    ("wrong_part_count", [b"a", fields(), b"", b""]),
    ("id_empty", [b"", fields(), b""]),
    ("id_too_long", [b"a" * 201, fields(), b""]),
    ("id_too_long", [b"a" * 100_000, fields(), b""]),
    ("id_not_utf8", [b"\xff", fields(), b""]),
    ("id_not_utf8", [b"\xed\xa0\x80", fields(), b""]),
    ("id_control_character", [b"a\n", fields(), b""]),
    ("id_control_character", [b"\x00", fields(), b""]),
    ("id_control_character", [b"\x7f", fields(), b""]),
    ("id_control_character", ["\x85".encode(), fields(), b""]),
    ("header_length", [b"a", b"", b""]),
    ("header_length", [b"a", fields()[:-1], b""]),
    ("header_length", [b"a", fields() + b"\0", b""]),
    ("bad_magic", [b"a", b"SRD2" + fields()[4:], b""]),
    ("unknown_encoding", [b"a", fields(encoding=5), b""]),
    ("bad_channels", [b"a", fields(channels=0), b""]),
    ("bad_channels", [b"a", fields(channels=9), b""]),
    ("unknown_flags", [b"a", fields(flags=64), b""]),
    ("unknown_flags", [b"a", fields(flags=0x8001), b""]),
    ("conflicting_flags", [b"a", fields(flags=24), b""]),
    ("bad_sample_rate", [b"a", fields(sample_rate_hz=7999), b""]),
    ("bad_sample_rate", [b"a", fields(sample_rate_hz=48001), b""]),
    ("first_sample_range", [b"a", fields(first_sample=2**53), b""]),
    ("first_sample_range", [b"a", fields(first_sample=2**64 - 1), b""]),
    ("first_sample_range", [b"a", fields(first_sample=2**53 - 1), b"\0\0"]),
    ("captured_at_range", [b"a", fields(captured_at_ns=2**63), b""]),
    ("payload_too_large", [b"a", fields(), bytes(MAX_PAYLOAD_BYTES + 2)]),
    ("ragged_payload", [b"a", fields(), b"\0"]),
    ("ragged_payload", [b"a", fields(encoding=2, channels=2), b"\0"]),
    ("ragged_payload", [b"a", fields(encoding=4), b"\0\0"]),
    ("payload_without_encoding", [b"a", fields(encoding=0), b"\0"]),
    ("metadata_with_encoding", metadata_parts(b"{}", encoding=1)),
    ("metadata_not_json", metadata_parts(b"")),
    ("metadata_not_json", metadata_parts(b"{")),
    ("metadata_not_json", metadata_parts(b"\xff")),
    ("metadata_not_json", metadata_parts(b'{"call_id":"\xff"}')),
    ("metadata_not_json", metadata_parts(b'{"later":' + b"[" * 100_000)),
    ("metadata_not_json", metadata_parts(b'{"\x80later":1}')),
    ("metadata_not_json", metadata_parts(b'{"later":"\\ud800"}')),
    ("metadata_shape", metadata_parts(b"[]")),
    ("metadata_shape", metadata_parts(b'{"call_id":1}')),
    ("metadata_shape", metadata_parts(b'{"call_id":"a\\u001b[2J"}')),
    ("metadata_shape", metadata_parts(b'{"call_id":"a\\n"}')),
    ("metadata_shape", metadata_parts(b'{"labels":{"a":1}}')),
    ("metadata_shape", metadata_parts(b'{"labels":{"":"1"}}')),
    (
        "metadata_shape",
        metadata_parts(
            json.dumps({"labels": {str(k): "" for k in range(MAX_LABELS + 1)}}).encode()
        ),
    ),
    ("metadata_roles_count", metadata_parts(b'{"roles":["agent"]}', channels=2)),
    ("metadata_roles_count", metadata_parts(b'{"roles":[]}')),
    ("metadata_shape", metadata_parts(b'{"roles":[1]}')),
    ("metadata_shape", metadata_parts(b'{"consent":"yes"}')),
    ("metadata_shape", metadata_parts(b'{"consent":1}')),
]


@pytest.mark.parametrize(
    ("payload", "channels", "roles"),
    [
        (b'{"roles":["Agent"]}', 1, (None,)),
        (b'{"roles":["customer","agnt"]}', 2, (Role.CUSTOMER, None)),
        (b'{"roles":[null]}', 1, (None,)),
        (b'{"roles":["customer","agent"]}', 1, (Role.MIXED,)),
        (b'{"roles":["customer","customer"]}', 1, (Role.CUSTOMER,)),
        (b'{"roles":["customer","agnt"]}', 1, (None,)),
    ],
)
def test_roles_that_are_no_roles_and_several_on_one_channel(
    payload: bytes, channels: int, roles: tuple[Role | None, ...]
) -> None:
    assert parse_metadata(payload, channels).roles == roles


@pytest.mark.parametrize(("reason", "parts"), REFUSED)
def test_what_is_malformed_is_refused_with_its_reason(reason: str, parts: list[bytes]) -> None:
    with pytest.raises(MessageError) as caught:
        decode_message(parts)
    assert caught.value.code == reason


def test_every_reason_is_shown_above() -> None:
    # `not_finite` belongs to the decoding of f32le samples.
    assert {reason for reason, _ in REFUSED} == set(REASONS) - {"not_finite"}
    assert len(set(REASONS)) == len(REASONS)


def test_the_limits_themselves_are_allowed() -> None:
    name = b"\xf0\x9f\x98\x80" * 50
    audio = decode_message(
        [name, fields(channels=8, sample_rate_hz=48000), bytes(MAX_PAYLOAD_BYTES)]
    )
    assert len(audio.stream.encode()) == 200
    assert audio.samples == MAX_PAYLOAD_BYTES // 16
    highest = fields(first_sample=MAX_SAMPLE - 1, captured_at_ns=MAX_TIME_NS, sequence=2**32 - 1)
    assert decode_message([b"a", highest, b"\0\0"]).samples == 1
    assert decode_message([b"a", fields(encoding=0, flags=2), b""]).samples == 0


def test_unknown_and_null_metadata_keys_are_skipped() -> None:
    message = decode_message(metadata_parts(b'{"call_id":null,"later":{"a":[1]},"language":"de"}'))
    assert message.metadata == Metadata(language="de")


def test_the_writer_counts_messages_and_samples() -> None:
    writer = TapWriter("a", 8000, Encoding.MULAW, channels=2, sequence=2**32 - 2)
    parts = [
        writer.start(captured_at_ns=5),
        writer.audio(np.zeros((3, 2), np.int16)),
        writer.metadata(Metadata(call_id="c")),
        writer.pause(),
        writer.resume(),
    ]
    writer.skip(100)
    parts.append(writer.audio(b"\xff\xff"))
    writer.skip(50, lost=True)
    parts += [writer.audio(b""), writer.end()]
    seen = [decode_message(message).header for message in parts]
    wrapped = [2**32 - 2, 2**32 - 1, 0, 1, 2, 3, 4, 5]
    assert [header.sequence for header in seen] == wrapped
    assert [header.first_sample for header in seen] == [0, 0, 3, 3, 3, 103, 154, 154]
    assert [header.flags for header in seen] == [
        Flag.START,
        0,
        Flag.METADATA,
        Flag.PAUSE,
        Flag.RESUME,
        0,
        Flag.DISCONTINUITY,
        Flag.END,
    ]
    assert [header.encoding for header in seen] == [0, 2, 0, 0, 0, 2, 2, 0]
    assert parts[1][2] == b"\xff" * 6


def test_a_refused_message_does_not_move_the_writer() -> None:
    writer = TapWriter("a", 8000, Encoding.S16LE, channels=2)
    for bad in (b"\0", bytes(MAX_PAYLOAD_BYTES + 4)):
        with pytest.raises(MessageError):
            writer.audio(bad)
    with pytest.raises(MessageError, match="roles"):
        writer.start(Metadata(roles=(Role.SELF,)))
    assert (writer.sequence, writer.first_sample) == (0, 0)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("id_empty", ("", 8000, Encoding.S16LE, 1)),
        ("bad_sample_rate", ("a", 44, Encoding.S16LE, 1)),
        ("bad_channels", ("a", 8000, Encoding.S16LE, 9)),
        ("unknown_encoding", ("a", 8000, Encoding.NONE, 1)),
    ],
)
def test_the_writer_refuses_what_the_daemon_would(
    code: str, arguments: tuple[str, int, Encoding, int]
) -> None:
    with pytest.raises(MessageError) as caught:
        TapWriter(*arguments)
    assert caught.value.code == code


def test_numbers_that_do_not_fit_into_a_header_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="range"):
        encode_header(GOLDEN_HEADER._replace(sequence=2**32))
