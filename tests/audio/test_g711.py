"""G.711 against the Recommendation's tables, golden values and an independent implementation."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from serd.audio import g711
from serd.types import Int16Array

CODES = np.arange(256, dtype=np.uint8)
LINEAR: Int16Array = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)

# Quantised outputs y at the ends of the segments (G.711 tables 1a and 2a), left-aligned to 16 bits.
MULAW_GOLDEN = {
    0xFF: 0, 0xFE: 8, 0xF0: 120, 0xEF: 132, 0xE0: 372, 0xDF: 396, 0xD0: 876, 0xCF: 924,
    0xC0: 1884, 0xBF: 1980, 0xB0: 3900, 0xAF: 4092, 0xA0: 7932, 0x9F: 8316, 0x90: 15996,
    0x8F: 16764, 0x80: 32124, 0x00: -32124, 0x7E: -8, 0x7F: 0,
}  # fmt: skip
ALAW_GOLDEN = {
    0xD5: 8, 0xDA: 248, 0xC5: 264, 0xCA: 504, 0xF5: 528, 0xFA: 1008, 0xE5: 1056, 0xEA: 2016,
    0x95: 2112, 0x9A: 4032, 0x85: 4224, 0x8A: 8064, 0xB5: 8448, 0xBA: 16128, 0xA5: 16896,
    0xAA: 32256, 0x55: -8, 0x2A: -32256,
}  # fmt: skip


@pytest.mark.parametrize(
    ("decode", "golden"), [(g711.decode_mulaw, MULAW_GOLDEN), (g711.decode_alaw, ALAW_GOLDEN)]
)
def test_decodes_the_values_of_the_recommendation(
    decode: Callable[[NDArray[np.uint8]], Int16Array], golden: dict[int, int]
) -> None:
    codes = np.array(list(golden), np.uint8)
    assert decode(codes).tolist() == list(golden.values())
    assert decode(codes).dtype == np.int16


def test_every_alaw_code_survives_a_round_trip() -> None:
    assert np.array_equal(g711.encode_alaw(g711.decode_alaw(CODES)), CODES)


def test_every_mulaw_code_but_negative_zero_survives_a_round_trip() -> None:
    back = g711.encode_mulaw(g711.decode_mulaw(CODES))
    changed = np.flatnonzero(back != CODES)
    assert changed.tolist() == [0x7F]
    assert back[0x7F] == 0xFF


def decision_values(law: str) -> list[int]:
    """Upper ends of the positive intervals, in 16-bit units, as tables 1a and 2a list them."""
    if law == "mulaw":
        values = [1 + 2 * step for step in range(16)]
        while len(values) < 127:
            width = 2 * (values[-1] - values[-2])
            values += [values[-1] + width * step for step in range(1, 17)]
        return [value * 4 for value in values[:127]]
    values = [2 * step for step in range(1, 33)]
    while len(values) < 128:
        width = 2 * (values[-1] - values[-2])
        values += [values[-1] + width * step for step in range(1, 17)]
    return [value * 8 for value in values[:127]]


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_every_sample_lands_in_the_interval_that_the_decision_values_give(law: str) -> None:
    encode = g711.encode_mulaw if law == "mulaw" else g711.encode_alaw
    inverted = encode(LINEAR) ^ (0xFF if law == "mulaw" else 0xD5)
    interval = (inverted & 0x7F).astype(int)
    edges = decision_values(law)
    positive = LINEAR >= 0
    expected = np.searchsorted(edges, LINEAR[positive], side="right")
    assert np.array_equal(interval[positive], expected)
    expected = np.searchsorted(edges, -LINEAR[~positive].astype(int), side="left")
    assert np.array_equal(interval[~positive], expected)
    assert np.array_equal(inverted & 0x80 == 0, positive)


def test_agrees_with_audioop() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop", reason="gone from Python 3.13 on")
    codes = CODES.tobytes()
    assert g711.decode_mulaw(CODES).tobytes() == audioop.ulaw2lin(codes, 2)
    assert g711.decode_alaw(CODES).tobytes() == audioop.alaw2lin(codes, 2)
    assert g711.encode_alaw(LINEAR).tobytes() == audioop.lin2alaw(LINEAR.tobytes(), 2)
    positive = LINEAR[LINEAR >= 0]
    mulaw = audioop.lin2ulaw(positive.tobytes(), 2)
    assert g711.encode_mulaw(positive).tobytes() == mulaw
    # audioop floors negative samples to 14 bits; the ITU's tools mirror the positive ones.
    mirrored = np.frombuffer(mulaw, np.uint8) ^ 0x80
    assert np.array_equal(g711.encode_mulaw(~positive), mirrored)


def test_keeps_any_shape_and_takes_strided_samples() -> None:
    samples = np.arange(-600, 600, dtype=np.int16).reshape(300, 4)
    assert g711.encode_mulaw(samples).shape == (300, 4)
    assert np.array_equal(g711.encode_alaw(samples[:, 1]), g711.encode_alaw(samples)[:, 1])
    assert g711.decode_mulaw(np.empty((0, 2), np.uint8)).shape == (0, 2)
