"""The calls that every program is given, and the schedule on which they are played."""

from __future__ import annotations

import numpy as np

from serd.audio import g711
from serd.bench.material import Material, prepare
from serd.bench.tape import SLOT_NS, SLOTS, TICK_MS, Streams
from serd.config.schema import Config
from serd.types import Encoding, Int16Array, Int64Array

RATE_HZ = 8000
BLOCK = RATE_HZ * TICK_MS // 1000
_SPREAD_TICKS = 100
_GOLDEN = 0.6180339887498949


def make_calls(seconds: float) -> Material:
    """`serd bench`'s conversations as µ-law, of the shipped synthetic speech."""
    return prepare(Config(), Encoding.MULAW, [], seconds, seed=1)


def heard(calls: Material) -> Int16Array:
    """int16 ``[conversations, samples]``: what every detector hears."""
    return g711.decode_mulaw(calls.audio.reshape(len(calls.audio), -1))


def seconds(calls: Material) -> float:
    """Length of each conversation."""
    return float(calls.audio.shape[1] * TICK_MS / 1000)


def schedule(count: int, calls: Material, taps: int = 4) -> Streams:
    """`count` streams that take the conversations in turn and begin within two seconds."""
    number = np.arange(count)
    # Spread evenly, whatever the count, and not in the order of the conversations.
    join = (number * _GOLDEN % 1.0 * _SPREAD_TICKS).astype(np.int64)
    conversations, blocks, _ = calls.audio.shape
    return Streams(
        number, number % conversations, join, np.full(count, blocks), number % SLOTS, number % taps
    )


def due_ns(streams: Streams, number: Int64Array, samples: Int64Array, begun_ns: int) -> Int64Array:
    """When the block with the last of the first `samples` (int64 ``[n]``, at least 1) of the
    streams `number` (int64 ``[n]``) was to leave, on the monotonic clock.
    """
    tick = streams.join[number] + (samples - 1) // BLOCK
    return begun_ns + (tick * SLOTS + streams.slot[number]) * SLOT_NS
