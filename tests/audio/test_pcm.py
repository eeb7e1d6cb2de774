from __future__ import annotations

import struct

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.audio import pcm
from serd.errors import MessageError
from serd.types import Encoding, Int16Array

AUDIO = (Encoding.S16LE, Encoding.MULAW, Encoding.ALAW, Encoding.F32LE)

blocks = npst.arrays(np.int16, st.tuples(st.integers(0, 60), st.integers(1, 8)))


@given(blocks)
@pytest.mark.parametrize("encoding", [Encoding.S16LE, Encoding.F32LE])
def test_linear_encodings_round_trip_exactly(encoding: Encoding, samples: Int16Array) -> None:
    payload = pcm.encode(samples, encoding)
    assert len(payload) == samples.size * encoding.sample_bytes
    assert np.array_equal(pcm.decode(payload, encoding, samples.shape[1]), samples)


@given(blocks)
@pytest.mark.parametrize("encoding", [Encoding.MULAW, Encoding.ALAW])
def test_companded_encodings_round_trip_their_own_output(
    encoding: Encoding, samples: Int16Array
) -> None:
    once = pcm.decode(pcm.encode(samples, encoding), encoding, samples.shape[1])
    twice = pcm.decode(pcm.encode(once, encoding), encoding, samples.shape[1])
    assert np.array_equal(once, twice)
    assert once.shape == samples.shape


@pytest.mark.parametrize(
    ("encoding", "payload", "expected"),
    [
        (Encoding.S16LE, "0100ffff0080ff7f", [[1, -1], [-32768, 32767]]),
        (Encoding.MULAW, "ff7f8000", [[0, 0], [32124, -32124]]),
        (Encoding.ALAW, "d555aa2a", [[8, -8], [32256, -32256]]),
        (Encoding.F32LE, "0000003f000000bf0000803f000080bf", [[16384, -16384], [32767, -32768]]),
    ],
)
def test_golden_bytes(encoding: Encoding, payload: str, expected: list[list[int]]) -> None:
    decoded = pcm.decode(bytes.fromhex(payload), encoding, 2)
    assert decoded.dtype == np.int16
    assert decoded.tolist() == expected


@given(
    st.sampled_from(AUDIO),
    st.integers(1, 8),
    st.integers(0, 200),
)
def test_a_payload_is_whole_frames_or_is_refused(
    encoding: Encoding, channels: int, size: int
) -> None:
    frame = encoding.sample_bytes * channels
    payload = bytes(size)
    if size % frame == 0:
        assert pcm.decode(payload, encoding, channels).shape == (size // frame, channels)
    else:
        with pytest.raises(MessageError) as refusal:
            pcm.decode(payload, encoding, channels)
        assert refusal.value.code == "ragged_payload"


@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), max_size=20))
def test_floats_saturate_round_and_are_refused_when_not_finite(values: list[float]) -> None:
    payload = struct.pack(f"<{len(values)}f", *values)
    if not np.isfinite(values).all():
        with pytest.raises(MessageError) as refusal:
            pcm.decode(payload, Encoding.F32LE, 1)
        assert refusal.value.code == "not_finite"
        return
    expected = [max(-32768, min(32767, round(value * 32768))) for value in values]
    assert pcm.decode(payload, Encoding.F32LE, 1)[:, 0].tolist() == expected


def test_the_largest_float_saturates_without_a_warning() -> None:
    payload = struct.pack("<2f", 3.4e38, -3.4e38)
    assert pcm.decode(payload, Encoding.F32LE, 1)[:, 0].tolist() == [32767, -32768]


@pytest.mark.parametrize("encoding", AUDIO)
def test_takes_memoryviews_at_odd_addresses(encoding: Encoding) -> None:
    samples = np.array([[100, -100], [2000, -2000], [8, 0]], np.int16)
    payload = pcm.encode(samples, encoding)
    shifted = memoryview(b"\x00" + payload)[1:]
    assert np.array_equal(pcm.decode(shifted, encoding, 2), pcm.decode(payload, encoding, 2))


def test_s16le_is_a_read_only_view_of_the_payload() -> None:
    payload = pcm.encode(np.arange(10, dtype=np.int16).reshape(5, 2), Encoding.S16LE)
    decoded = pcm.decode(payload, Encoding.S16LE, 2)
    assert np.shares_memory(decoded, np.frombuffer(payload, np.uint8))
    assert not decoded.flags.writeable


def test_encodes_strided_samples() -> None:
    samples = np.arange(12, dtype=np.int16).reshape(6, 2)[::2]
    for encoding in AUDIO:
        assert pcm.encode(samples, encoding) == pcm.encode(samples.copy(), encoding)


def test_no_encoding_has_no_samples() -> None:
    with pytest.raises(MessageError) as refusal:
        pcm.decode(b"", Encoding.NONE, 1)
    assert refusal.value.code == "not_audio"
    with pytest.raises(ValueError, match="no samples"):
        pcm.encode(np.zeros((1, 1), np.int16), Encoding.NONE)
