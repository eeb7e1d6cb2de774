"""Payload bytes of the tap protocol to int16 samples and back."""

from __future__ import annotations

import numpy as np

from serd.audio import g711
from serd.errors import MessageError
from serd.types import Encoding, Float32Array, Int16Array

_FULL_SCALE = np.float32(32768.0)


def from_float(samples: Float32Array) -> Int16Array:
    """Floats with ±1.0 as full scale to int16: scaled by 32768, rounded, saturated.

    Parameters
    ----------
    samples
        float32, any shape. Finite values beyond full scale saturate.

    Raises
    ------
    MessageError
        ``not_finite``: a sample is NaN or infinite.
    """
    if not np.isfinite(samples).all():
        raise MessageError("not_finite", "a float sample is NaN or infinite")
    # Saturating first keeps the product of a huge finite sample from overflowing.
    scaled = np.clip(samples, -1.0, 1.0)
    scaled *= _FULL_SCALE
    np.rint(scaled, out=scaled)
    return np.minimum(scaled, np.float32(32767.0), out=scaled).astype(np.int16)


def decode(
    payload: bytes | bytearray | memoryview, encoding: Encoding, channels: int
) -> Int16Array:
    """Samples of a payload.

    Parameters
    ----------
    payload
        Interleaved samples.
    encoding
        How a sample is written.
    channels
        Channels of a frame, at least 1.

    Returns
    -------
    int16 ``[frames, channels]``
        For `Encoding.S16LE` a read-only view of `payload`, without a copy.

    Raises
    ------
    MessageError
        ``ragged_payload``: not a whole number of frames; ``not_finite``: a float sample is NaN
        or infinite; ``not_audio``: the encoding is `Encoding.NONE`.
    """
    frame_bytes = encoding.sample_bytes * channels
    if frame_bytes == 0:
        raise MessageError("not_audio", "encoding 0 (none) has no samples")
    size = payload.nbytes if isinstance(payload, memoryview) else len(payload)
    if size % frame_bytes:
        raise MessageError(
            "ragged_payload",
            f"{size} bytes are not a whole number of frames of {frame_bytes} bytes "
            f"({channels} channels, {encoding.name.lower()})",
        )
    samples: Int16Array
    if encoding is Encoding.S16LE:
        samples = np.frombuffer(payload, "<i2").astype(np.int16, copy=False)
    elif encoding is Encoding.MULAW:
        samples = g711.decode_mulaw(np.frombuffer(payload, np.uint8))
    elif encoding is Encoding.ALAW:
        samples = g711.decode_alaw(np.frombuffer(payload, np.uint8))
    else:
        samples = from_float(np.frombuffer(payload, "<f4").astype(np.float32, copy=False))
    return samples.reshape(-1, channels)


def encode(samples: Int16Array, encoding: Encoding) -> bytes:
    """Payload of int16 samples ``[frames, channels]``; the inverse of `decode`.

    Raises
    ------
    ValueError
        The encoding is `Encoding.NONE`.
    """
    if encoding is Encoding.S16LE:
        return samples.astype("<i2", copy=False).tobytes()
    if encoding is Encoding.MULAW:
        return g711.encode_mulaw(samples).tobytes()
    if encoding is Encoding.ALAW:
        return g711.encode_alaw(samples).tobytes()
    if encoding is Encoding.F32LE:
        return (samples / _FULL_SCALE).astype("<f4", copy=False).tobytes()
    raise ValueError("encoding 0 (none) has no samples")
