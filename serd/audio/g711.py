"""G.711 companding: µ-law and A-law codes to and from 16-bit linear samples.

The laws are those of ITU-T Recommendation G.711 (11/88), tables 1a to 2b. Linear samples are 16
bits wide with the law's own scale (14 bits for µ-law, 13 for A-law) left-aligned, as in the
ITU-T software tool library (Recommendation G.191), so full scale decodes to ±32124 (µ-law) and
±32256 (A-law).

A linear value that lies exactly on a decision value belongs, as in G.191, to the outer interval
when it is positive and to the inner one when it is negative. Encoders that first floor the
sample to 14 bits (Python's former ``audioop`` among them) place small negative values one
µ-law step further out; the decoders of all of them agree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serd.types import Int16Array

UInt8Array = NDArray[np.uint8]

_MULAW_BIAS = 33
_MULAW_CLIP = 0x1FFF


def _mulaw_levels() -> Int16Array:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    segment, step = (code >> 4) & 7, code & 15
    magnitude = (((2 * step + _MULAW_BIAS) << segment) - _MULAW_BIAS) << 2
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_levels() -> Int16Array:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment, step = (code >> 4) & 7, code & 15
    # Segment 0 continues segment 1's straight line down to zero.
    magnitude = np.where(segment == 0, 2 * step + 1, (2 * step + 33) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude << 3, -(magnitude << 3)).astype(np.int16)


def _one_complement_magnitudes() -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Magnitude and sign of every 16-bit pattern, in the order of the pattern as uint16."""
    linear = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    negative = linear < 0
    return np.where(negative, ~linear, linear), negative


def _mulaw_codes() -> UInt8Array:
    magnitude, negative = _one_complement_magnitudes()
    biased = np.minimum((magnitude >> 2) + _MULAW_BIAS, _MULAW_CLIP)
    segment = np.log2(biased).astype(np.int32) - 5
    step = (biased >> (segment + 1)) & 15
    code = (segment << 4) | step | np.where(negative, 0x80, 0)
    codes: UInt8Array = (~code & 0xFF).astype(np.uint8)
    return codes


def _alaw_codes() -> UInt8Array:
    magnitude, negative = _one_complement_magnitudes()
    scaled = magnitude >> 4
    segment = np.maximum(np.log2(np.maximum(scaled, 1)).astype(np.int32) - 3, 0)
    step = (scaled >> np.maximum(segment - 1, 0)) & 15
    code = (segment << 4) | step | np.where(negative, 0, 0x80)
    codes: UInt8Array = (code ^ 0x55).astype(np.uint8)
    return codes


_MULAW_LEVELS = _mulaw_levels()
_ALAW_LEVELS = _alaw_levels()
_MULAW_CODES = _mulaw_codes()
_ALAW_CODES = _alaw_codes()


def decode_mulaw(codes: UInt8Array) -> Int16Array:
    """Expand µ-law codes, uint8 of any shape, to int16 samples of the same shape."""
    return _MULAW_LEVELS.take(codes)


def decode_alaw(codes: UInt8Array) -> Int16Array:
    """Expand A-law codes, uint8 of any shape, to int16 samples of the same shape."""
    return _ALAW_LEVELS.take(codes)


def encode_mulaw(samples: Int16Array) -> UInt8Array:
    """Compress int16 samples of any shape to µ-law codes, uint8 of the same shape."""
    return _MULAW_CODES.take(samples.view(np.uint16))


def encode_alaw(samples: Int16Array) -> UInt8Array:
    """Compress int16 samples of any shape to A-law codes, uint8 of the same shape."""
    return _ALAW_CODES.take(samples.view(np.uint16))
