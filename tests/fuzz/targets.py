"""What is fuzzed: every decoder of bytes that others send or write, and what must then hold.

A target takes any bytes, hands them to a decoder, lets the errors pass that the decoder promises,
and checks what can be said of a result whatever the input was. Each comes with seeds: inputs that
a decoder accepts, from which a fuzzer finds its way to those that are nearly right.
"""

from __future__ import annotations

import struct
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from serd.audio import pcm
from serd.config import loading
from serd.errors import ConfigError, MessageError, ModelError, SerdError
from serd.inference.manifest import load_manifest
from serd.protocol import events, replay, tap
from serd.protocol.bulk import header_kind, read_headers
from serd.types import Encoding
from tests.fuzz.streams import check_streams, stream_seeds
from tests.protocol import examples
from tests.sources.intake_bench import Tap, ramp


class Target(NamedTuple):
    """Something to fuzz: what to do with an input, and inputs to begin with."""

    check: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]


def _is_promised(error: SerdError, codes: Sequence[str]) -> None:
    assert error.code in codes, error.code


def _names_its_file(error: SerdError, path: Path) -> None:
    assert error.message.startswith(str(path)), error.message


# tap messages: one byte with the length of the id, the id, the header, the payload


def _parts(data: bytes) -> list[bytes]:
    """Parts of a multipart message; mostly three, and any number now and then."""
    if not data:
        return []
    size = data[0]
    if size > 220:
        step = 1 + size % 7
        return [data[at : at + step] for at in range(1, len(data), step)]
    body = data[1:]
    return [body[:size], body[size : size + 32], body[size + 32 :]]


def _check_tap_message(data: bytes) -> None:
    parts = _parts(data)
    try:
        message = tap.decode_message(parts)
    except MessageError as error:
        _is_promised(error, tap.REASONS)
        return
    header = message.header
    assert message.stream.encode() == parts[0]
    assert tap.encode_header(header) == parts[1]
    assert message.payload == parts[2]
    assert header.first_sample + message.samples <= tap.MAX_SAMPLE
    if header.encoding is not Encoding.NONE:
        try:
            samples = pcm.decode(message.payload, header.encoding, header.channels)
        except MessageError as error:
            _is_promised(error, ("not_finite",))
        else:
            assert samples.shape == (message.samples, header.channels)
    if message.metadata is not None:
        _check_same_metadata(message.metadata, header.channels)


def _tap_seeds() -> list[bytes]:
    bent = Tap("call-7", channels=2)
    audio = ramp(16)
    messages = [
        bent.metadata(call_id="c-1", roles=["customer", "agent"], labels={"queue": "sales"}),
        *(bent.audio(audio, encoding=encoding, captured_at_ns=10**18) for encoding in _SOUNDS),
        bent.plain(tap.Flag.PAUSE),
        bent.plain(tap.Flag.END),
    ]
    return [bytes([len(parts[0])]) + b"".join(parts) for parts in messages]


_SOUNDS = tuple(encoding for encoding in Encoding if encoding is not Encoding.NONE)


# headers, many at once against one by one


def _check_headers(data: bytes) -> None:
    size = tap.HEADER_BYTES
    raw = [data[at : at + size] for at in range(0, len(data), size)]
    if not raw:
        return
    columns = read_headers(raw)
    for number, one in enumerate(raw):
        try:
            header = tap.decode_header(one)
        except MessageError as error:
            _is_promised(error, tap.REASONS)
            assert not _could_be_plain(columns, number), one
            continue
        assert int(columns.kind[number]).to_bytes(8, "little") == one[:8]
        assert columns.sample_rate_hz[number] == header.sample_rate_hz
        assert columns.sequence[number] == header.sequence
        assert columns.first_sample[number] == header.first_sample
        assert columns.captured_at_ns[number] == header.captured_at_ns


def _could_be_plain(columns: object, number: int) -> bool:
    """Whether the bulk path would take the message of this header, given a stream that fits it."""
    kind, rate, _, first, captured = (int(column[number]) for column in columns)  # type: ignore[attr-defined]  # a named tuple of arrays
    return (
        kind in _PLAIN_KINDS
        and tap.MIN_SAMPLE_RATE_HZ <= rate <= tap.MAX_SAMPLE_RATE_HZ
        and 0 <= first <= tap.MAX_SAMPLE
        and captured >= 0
    )


_PLAIN_KINDS = frozenset(
    header_kind(encoding) for encoding in (Encoding.S16LE, Encoding.MULAW, Encoding.ALAW)
)


def _header_seeds() -> list[bytes]:
    headers = [
        tap.encode_header(tap.Header(encoding, 1, 0, rate, sequence, 160 * sequence, 10**18))
        for sequence, encoding in enumerate(Encoding)
        for rate in (8000, 48_000)
    ]
    edge = struct.pack("<4sBBHIIQQ", b"SRD1", 2, 1, 0, 8000, 2**32 - 1, 2**53 - 1, 2**63 - 1)
    beyond = struct.pack("<4sBBHIIQQ", b"SRD1", 2, 1, 0, 8000, 1, 2**63, 2**64 - 1)
    return [b"".join(headers), edge + beyond, headers[0] + headers[1][:31]]


# metadata


def _check_metadata(data: bytes) -> None:
    channels = 1 + data[0] % 8 if data else 1
    try:
        metadata = tap.parse_metadata(data[1:], channels)
    except MessageError as error:
        _is_promised(error, tap.REASONS)
        return
    _check_same_metadata(metadata, channels)


def _check_same_metadata(metadata: tap.Metadata, channels: int) -> None:
    assert metadata.roles is None or len(metadata.roles) == channels
    texts = [metadata.call_id, metadata.language]
    for name, value in (metadata.labels or {}).items():
        assert 1 <= len(name) <= tap.MAX_LABEL_NAME
        assert len(value) <= tap.MAX_LABEL_VALUE
        texts += [name, value]
    # Text that arrives in events and logs must not be able to end a line there.
    assert all(text is None or text.isprintable() or "\n" not in text for text in texts)
    assert tap.parse_metadata(tap.encode_metadata(metadata), channels) == metadata


def _metadata_seeds() -> list[bytes]:
    return [
        b'\0{"call_id":"c-1","language":"de-DE","roles":["customer"],"labels":{"a":"b"}}',
        b'\1{"roles":["customer","agent"],"unknown":[1,2.5e3,null,{"x":"\\u00e9"}]}',
        b'\0{"labels":{"\\ud83d\\ude00":"\xc3\xa9"},"consent":true}',
        b"\0[]",
    ]


# events and replay, as a client and the daemon read them


def _check_event(data: bytes) -> None:
    try:
        event = events.decode(data)
    except MessageError as error:
        _is_promised(error, ("bad_event",))
        return
    again = events.encode(event)
    assert events.encode(events.decode(again)) == again
    events.topic(event).decode()


def _event_seeds() -> list[bytes]:
    makers = (
        examples.stream,
        examples.speech,
        examples.emotion,
        examples.utterance,
        examples.gap,
        examples.daemon,
    )
    return [events.encode(make()) for make in makers]


def _check_replay_request(data: bytes) -> None:
    try:
        request = replay.decode_request([data])
    except MessageError as error:
        _is_promised(error, ("bad_request",))
        return
    assert 0 <= request.after < 2**53
    assert request.limit >= 1
    assert replay.decode_request(replay.encode_request(request)) == request


def _replay_request_seeds() -> list[bytes]:
    requests = (
        replay.ReplayRequest(),
        replay.ReplayRequest(after=12, before=99, topic="emotion.call-1", limit=5),
        replay.ReplayRequest(last=True),
    )
    return [replay.encode_request(request)[0] for request in requests]


def _check_replay_reply(data: bytes) -> None:
    parts = data.split(b"\xff\xfe")
    try:
        reply = replay.decode_reply(parts)
    except MessageError as error:
        _is_promised(error, ("bad_reply", "bad_cursor"))
        return
    assert replay.decode_reply(replay.encode_reply(reply)) == reply


def _replay_reply_seeds() -> list[bytes]:
    done = replay.ReplayDone(run_id="0" * 16, after=9, more=False, oldest=1, newest=9, expired=0)
    replies = (
        replay.StoredEvent(7, b"emotion.call-1", b"{}"),
        done,
        replay.ReplayError(code="bad_request", message="no"),
    )
    return [b"\xff\xfe".join(replay.encode_reply(reply)) for reply in replies]


# files: what an operator writes


@cache
def _scratch() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    folder = tempfile.TemporaryDirectory(prefix="serd-fuzz-")
    return folder, Path(folder.name) / "input"


def _check_manifest(data: bytes) -> None:
    _, path = _scratch()
    path.write_bytes(data)
    try:
        load_manifest(path)
    except ModelError as error:
        _names_its_file(error, path)


def _manifest_seeds() -> list[bytes]:
    models = Path(loading.__file__).parent.parent / "models"
    return [path.read_bytes() for path in sorted(models.glob("*.json"))]


def _check_config(data: bytes) -> None:
    _, path = _scratch()
    path.write_bytes(data)
    try:
        table = loading.read(path)
    except ConfigError as error:
        _is_promised(error, ("config_syntax",))
        _names_its_file(error, path)
        return
    config, problems = loading.check(table)
    # With defaults in place of what is wrong, the rest must hold.
    assert config.sources
    for problem in problems:
        assert str(problem).isprintable(), problem


def _config_seeds() -> list[bytes]:
    text = loading.defaults_text()
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines())
    seeds = [text.encode(), b'[[sources]]\ntype="microphone"\nchannels=[1,2]\n']
    try:
        tomllib.loads(uncommented)
    except tomllib.TOMLDecodeError:
        return seeds
    return [*seeds, uncommented.encode()]


def _check_override(data: bytes) -> None:
    # As the command line hands it over: what is no UTF-8 comes as lone surrogates.
    text = data.decode(errors="surrogateescape")
    table: dict[str, object] = {}
    problems = loading.apply_overrides(table, text.split("\0"))
    problems += loading.check(table)[1]
    for problem in problems:
        str(problem).encode()


def _override_seeds() -> list[bytes]:
    return [
        b"segment.hop_s=0.5",
        b"sources.0.bind=tcp://127.0.0.1:5550\0sources.1.type=file\0sources.1.path=x",
        b'publish.bind=["tcp://127.0.0.1:*"]\0inference.device=cpu',
    ]


# samples


def _check_pcm(data: bytes) -> None:
    if len(data) < 2:
        return
    encoding, channels = _SOUNDS[data[0] % len(_SOUNDS)], 1 + data[1] % 8
    whole = (len(data) - 2) // (encoding.sample_bytes * channels)
    payload = data[2 : 2 + whole * encoding.sample_bytes * channels]
    try:
        samples = pcm.decode(payload, encoding, channels)
    except MessageError as error:
        _is_promised(error, ("not_finite",) if encoding is Encoding.F32LE else ())
        return
    assert samples.shape == (whole, channels)
    assert samples.dtype == np.int16
    if encoding is Encoding.S16LE:
        assert pcm.encode(samples, encoding) == payload


def _pcm_seeds() -> list[bytes]:
    floats = np.array([0.0, 1.0, -1.0, 1e30, 1e-40], "<f4").tobytes()
    return [b"\0\0" + bytes(range(32)), b"\1\1" + bytes(range(256)), b"\3\0" + floats]


TARGETS: dict[str, Target] = {
    "tap_message": Target(_check_tap_message, _tap_seeds),
    "tap_headers": Target(_check_headers, _header_seeds),
    "tap_metadata": Target(_check_metadata, _metadata_seeds),
    "tap_streams": Target(check_streams, stream_seeds),
    "samples": Target(_check_pcm, _pcm_seeds),
    "event": Target(_check_event, _event_seeds),
    "replay_request": Target(_check_replay_request, _replay_request_seeds),
    "replay_reply": Target(_check_replay_reply, _replay_reply_seeds),
    "manifest": Target(_check_manifest, _manifest_seeds),
    "config": Target(_check_config, _config_seeds),
    "override": Target(_check_override, _override_seeds),
}


def mutations(seed: bytes) -> Iterator[bytes]:
    """A seed cut short at every place, and with single bytes turned."""
    for end in range(min(len(seed), 200)):
        yield seed[:end]
    for at in range(0, len(seed), 1 + len(seed) // 200):
        for value in (0x00, 0x7F, 0x80, 0xFF, seed[at] ^ 1):
            yield seed[:at] + bytes([value]) + seed[at + 1 :]
