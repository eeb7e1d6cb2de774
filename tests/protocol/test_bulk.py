from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from serd.protocol.bulk import header_kind, read_headers
from serd.protocol.tap import Header, decode_header, encode_header
from serd.types import Encoding

_headers = st.builds(
    Header,
    encoding=st.sampled_from(Encoding),
    channels=st.integers(1, 8),
    flags=st.integers(0, 7),
    sample_rate_hz=st.integers(8000, 48_000),
    sequence=st.integers(0, 2**32 - 1),
    first_sample=st.integers(0, 2**53 - 1),
    captured_at_ns=st.integers(0, 2**63 - 1),
)


@given(st.lists(_headers, min_size=1, max_size=20))
def test_columns_are_what_the_decoder_reads(headers: list[Header]) -> None:
    raw = [encode_header(header) for header in headers]
    columns = read_headers(raw)
    for number, one in enumerate(raw):
        header = decode_header(one)
        assert columns.sample_rate_hz[number] == header.sample_rate_hz
        assert columns.sequence[number] == header.sequence
        assert columns.first_sample[number] == header.first_sample
        assert columns.captured_at_ns[number] == header.captured_at_ns
        same_kind = int(columns.kind[number]) == header_kind(header.encoding)
        assert same_kind == (header.channels == 1 and header.flags == 0)


@given(st.lists(st.binary(max_size=70), min_size=1, max_size=20), st.data())
def test_a_header_of_another_length_shifts_no_other(junk: list[bytes], data: st.DataObject) -> None:
    good = data.draw(st.lists(_headers, min_size=len(junk), max_size=len(junk)))
    raw = [part for pair in zip(junk, map(encode_header, good), strict=True) for part in pair]
    columns = read_headers(raw)
    assert columns.sequence[1::2].tolist() == [header.sequence for header in good]
    for kind, part in zip(columns.kind[::2].tolist(), junk, strict=True):
        assert kind == (int.from_bytes(part[:8], "little") if len(part) == 32 else 0)


def test_positions_and_times_out_of_range_are_negative() -> None:
    raw = struct.pack("<4sBBHIIQQ", b"SRD1", 2, 1, 0, 8000, 1, 2**63, 2**64 - 1)
    columns = read_headers([raw])
    assert columns.first_sample[0] < 0
    assert columns.captured_at_ns[0] == -1
