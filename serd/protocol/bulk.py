"""Headers of many tap messages at once, as columns of arrays.

It reads and judges nothing: which of the columns' values are allowed is for `serd.protocol.tap`
to say, and who uses this hands everything that is in any way unusual to the decoder there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serd.protocol.tap import HEADER_BYTES, MAGIC
from serd.types import Encoding, Int64Array

# Magic, encoding, channels and flags are compared as one number. The upper halves of the two
# 64-bit fields are no valid values, so they are read as signed: out of range is then negative.
_COLUMNS: Final = np.dtype(
    [
        ("kind", "<u8"),
        ("sample_rate_hz", "<u4"),
        ("sequence", "<u4"),
        ("first_sample", "<i8"),
        ("captured_at_ns", "<i8"),
    ]
)
_NO_HEADER: Final = bytes(HEADER_BYTES)


class Headers(NamedTuple):
    """Columns of ``k`` headers, each ``[k]``.

    Attributes
    ----------
    kind
        uint64, everything before the rate as one number, see `header_kind`. 0 where a header
        did not have 32 bytes; no header that begins with the magic has it.
    sample_rate_hz, sequence
        uint32.
    first_sample, captured_at_ns
        int64; negative where the field was above ``2**63 - 1``.
    """

    kind: NDArray[np.uint64]
    sample_rate_hz: NDArray[np.uint32]
    sequence: NDArray[np.uint32]
    first_sample: Int64Array
    captured_at_ns: Int64Array


def header_kind(encoding: Encoding) -> int:
    """`Headers.kind` of audio of one channel in an encoding, without flags."""
    return int.from_bytes(MAGIC + bytes([encoding, 1, 0, 0]), "little")


def read_headers(headers: Sequence[bytes]) -> Headers:
    """Read many headers. Their fields are not checked."""
    # Each length is looked at, not their sum: a header that is too short and one that is too long
    # would shift all those between them.
    if any(length != HEADER_BYTES for length in set(map(len, headers))):
        headers = [one if len(one) == HEADER_BYTES else _NO_HEADER for one in headers]
    table = np.frombuffer(b"".join(headers), _COLUMNS)
    return Headers(*(np.ascontiguousarray(table[name]) for name in Headers._fields))
