"""Resampling: exact lengths and positions, no seams, whatever the cuts."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serd.audio.resample import StreamResampler, to_model_rate
from serd.types import Int16Array

OUT_HZ = 16_000
RATES_HZ = (8000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def run(samples: Int16Array, in_hz: int, cuts: list[int]) -> Int16Array:
    """Resample in blocks that end at `cuts` (positions in the input)."""
    resampler = StreamResampler(in_hz, OUT_HZ)
    edges = [0, *sorted(cuts), len(samples)]
    blocks = [resampler.push(samples[start:end]) for start, end in pairwise(edges)]
    return np.concatenate([*blocks, resampler.finish()])


def expected_length(samples: int, in_hz: int) -> int:
    return math.floor(Fraction(samples * OUT_HZ, in_hz) + Fraction(1, 2))


@settings(max_examples=60)
@given(
    st.sampled_from(RATES_HZ) | st.integers(8000, 48_000),
    st.integers(0, 6000),
    st.integers(0, 2**32 - 1),
    st.data(),
)
def test_any_cutting_gives_the_same_bits_and_the_exact_length(
    in_hz: int, length: int, seed: int, data: st.DataObject
) -> None:
    samples = np.random.default_rng(seed).integers(-32768, 32768, length).astype(np.int16)
    cuts = data.draw(st.lists(st.integers(0, length), max_size=40))
    whole = run(samples, in_hz, [])
    assert whole.dtype == np.int16
    assert np.array_equal(run(samples, in_hz, cuts), whole)
    assert len(whole) == expected_length(length, in_hz)


@pytest.mark.parametrize("in_hz", RATES_HZ)
@pytest.mark.parametrize("block_ms", [1, 10, 20, 37, 100])
def test_the_usual_blocks_give_the_same_bits(
    in_hz: int, block_ms: int, rng: np.random.Generator
) -> None:
    samples = (rng.standard_normal(3 * in_hz) * 6000).astype(np.int16)
    cuts = list(range(0, len(samples), in_hz * block_ms // 1000))
    assert np.array_equal(run(samples, in_hz, cuts), run(samples, in_hz, []))


def peak_position(samples: Int16Array, around: int) -> float:
    """Position of the main lobe near `around`: a parabola through its three largest samples."""
    start = max(around - 20, 0)
    window = samples[start : around + 20].astype(float)
    top = int(window.argmax())
    left, middle, right = window[top - 1 : top + 2]
    return float(start + top + (left - right) / (2 * (left - 2 * middle + right)))


@pytest.mark.parametrize("in_hz", [*RATES_HZ, 8001, 15_999, 47_999])
def test_an_impulse_keeps_its_position_over_a_long_stream(in_hz: int) -> None:
    resampler = StreamResampler(in_hz, OUT_HZ)
    minute = np.zeros(60 * in_hz, np.int16)
    at = 59 * in_hz
    minute[at] = 30_000
    emitted = 0
    tail: Int16Array = np.empty(0, np.int16)
    for number in range(20):
        block = resampler.push(minute)
        recent = np.concatenate([tail, block])
        first = emitted - len(tail)
        expected = (number * len(minute) + at) * OUT_HZ / in_hz
        position = first + peak_position(recent, round(expected) - first)
        assert abs(position - expected) < 0.25
        emitted += len(block)
        tail = recent[-100:]


@pytest.mark.parametrize("in_hz", RATES_HZ)
def test_a_tone_passes_without_clicks_at_the_seams(in_hz: int) -> None:
    amplitude = 10_000
    times = np.arange(4 * in_hz) / in_hz
    tone = np.rint(amplitude * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
    block = in_hz // 50
    out = run(tone, in_hz, list(range(0, len(tone), block)))
    expected = amplitude * np.sin(2 * np.pi * 440 * np.arange(len(out)) / OUT_HZ)
    # The ends, where the tone begins and stops at once, ring; the middle is within rounding.
    inner = slice(OUT_HZ // 10, -OUT_HZ // 10)
    assert np.abs(out - expected)[inner].max() <= 2.0


@pytest.mark.parametrize("in_hz", [22_050, 44_100, 48_000])
def test_what_the_output_cannot_hold_is_filtered_out(in_hz: int) -> None:
    times = np.arange(2 * in_hz) / in_hz
    tone = (20_000 * np.sin(2 * np.pi * 9500 * times)).astype(np.int16)
    inner = run(tone, in_hz, [])[OUT_HZ // 10 : -OUT_HZ // 10]
    assert np.abs(inner).max() <= 2


def test_full_scale_saturates_and_never_wraps() -> None:
    square = np.where(np.arange(48_000) // 120 % 2, 32767, -32768).astype(np.int16)
    out = run(square, 48_000, [])
    # Overshoot beside an edge is what would wrap, and a wrapped sample has the other sign.
    inside = np.flatnonzero((np.arange(len(out)) % 40 >= 2) & (np.arange(len(out)) % 40 < 38))
    assert np.array_equal(np.sign(out[inside]), np.sign(square[3 * inside]))
    assert out.max() == 32767
    assert out.min() == -32768


@pytest.mark.parametrize("in_hz", RATES_HZ)
def test_a_segment_in_one_go_is_what_the_stream_gives(in_hz: int, rng: np.random.Generator) -> None:
    samples = (rng.standard_normal(3 * in_hz + 17) * 3000).astype(np.int16)
    model = to_model_rate(samples, in_hz, OUT_HZ)
    assert model.dtype == np.float32
    assert len(model) == expected_length(len(samples), in_hz)
    assert np.abs(model * 32768 - run(samples, in_hz, [])).max() <= 0.5


def test_equal_rates_only_scale() -> None:
    samples = np.array([-32768, -1, 0, 1, 32767], np.int16)
    scaled = to_model_rate(samples, OUT_HZ, OUT_HZ)
    assert scaled.dtype == np.float32
    assert np.array_equal(scaled * 32768, samples)


def test_a_loud_segment_stays_within_full_scale() -> None:
    square = np.where(np.arange(24_000) // 10 % 2, 32767, -32768).astype(np.int16)
    model = to_model_rate(square, 8000, OUT_HZ)
    assert np.abs(model).max() == 1.0
