"""Fuzzed messages of a few streams through a whole intake, in bulk and one by one.

The bytes are a script: which stream sends next, and what is wrong with its message. Both ways must
then have done the same, and neither may have failed at anything.
"""

from __future__ import annotations

import struct

import numpy as np

from serd.protocol.tap import Flag
from serd.sources import lanes
from serd.sources.burst import Burst
from serd.sources.intake import IntakeOptions
from serd.types import Encoding
from tests.sources.intake_bench import Bench, FakeSource, Tap, ramp

_Parts = tuple[bytes, bytes, bytes]

_OPTIONS = IntakeOptions(max_streams=4, reorder_messages=3)
_RATES_HZ = (8000, 8000, 16_000, 24_000)
_BURST = 24
_ENCODINGS = (Encoding.MULAW, Encoding.S16LE, Encoding.ALAW, Encoding.F32LE)
_AUDIO = {samples: ramp(samples) for samples in (0, 1, 40, 80)}


class _FreeTap(Tap):
    """A tap whose headers nobody checks before they are sent."""

    def _parts(
        self, encoding: Encoding, flags: int, payload: bytes, first: int, captured_at_ns: int
    ) -> _Parts:
        fields = (encoding, 1, flags, self.rate, self.sequence, first, captured_at_ns)
        self.sequence = (self.sequence + 1) % 2**32
        return self.stream.encode(), struct.pack("<4sBBHIIQQ", b"SRD1", *fields), payload


def _messages(script: bytes) -> list[_Parts]:
    """Three bytes a message: which stream and kind, what is done to it, and with which value."""
    taps = [_FreeTap(f"call-{number}", rate) for number, rate in enumerate(_RATES_HZ)]
    taps[0].sequence = 2**32 - 3
    sent: list[_Parts] = []
    for at in range(0, len(script) - 2, 3):
        kind, deed, value = script[at : at + 3]
        tap = taps[kind & 3]
        encoding = _ENCODINGS[kind >> 2 & 3]
        samples = _AUDIO[(80, 80, 80, 0, 1, 40, 80, 80)[kind >> 4 & 7]]
        stream, header, payload = tap.audio(samples, 0, encoding, 10**18 * (kind >> 7))
        match deed & 15:
            case 8:
                place = deed >> 4 | (value & 1) << 4
                header = header[:place] + bytes([value]) + header[place + 1 :]
            case 9:
                payload = payload[: value % (len(payload) + 1)]
            case 10:
                header = header[: value % 33]
            case 11:
                tap.sequence = (tap.sequence + (value - 8) * (1 << (deed >> 4))) % 2**32
            case 12:
                tap.index = max(0, tap.index + (value - 128) * (1 << (deed >> 4)))
            case 13:
                flags = Flag(value & 31)
                header = header[:6] + struct.pack("<H", flags) + header[8:]
            case 14:
                stream, header, payload = tap.metadata(
                    value & 31, roles=["agent" if value & 32 else "customer"], call_id=str(value)
                )
            case 15 if sent:
                stream, header, payload = sent[value % len(sent)]
        sent.append((stream, header, payload))
    return sent


def _deliver(bench: Bench, messages: list[_Parts], bulk: bool) -> None:
    rest = messages
    while rest:
        taken = 0
        if bulk:
            ids, headers, payloads = map(list, zip(*rest, strict=True))
            burst = Burst(ids, headers, payloads)
            taken = bench.table.messages(bench.source, burst, (), bench.clock.monotonic_ns())
        else:
            while taken < len(rest) and bench.send(*rest[taken]):
                taken += 1
        rest = rest[taken:]
        bench.read()
        bench.table.flush_pending(bench.clock.monotonic_ns())


def check_streams(script: bytes) -> None:
    """Play a script both ways and compare."""
    lossless = bool(script[:1] > b"\x7f")
    messages = _messages(script[1 : 3 * 4 * _BURST])
    single, bulk = (Bench(_OPTIONS, 1024, FakeSource(lossless=lossless)) for _ in range(2))
    fewest, lanes._FEWEST = lanes._FEWEST, 2
    try:
        for at in range(0, len(messages), _BURST):
            for bench in (single, bulk):
                _deliver(bench, messages[at : at + _BURST], bench is bulk)
                bench.clock.advance(0.02)
                bench.table.sweep(bench.clock.monotonic_ns())
        for bench in (single, bulk):
            bench.table.close_source(bench.source, "draining")
            for _ in range(10):
                bench.read()
                bench.table.flush_pending(0)
    finally:
        lanes._FEWEST = fewest
    assert bulk.table.counts == single.table.counts
    assert not single.table.counts["internal_errors"]
    assert bulk.controls == single.controls
    assert bulk.refused == single.refused
    assert single.table.streams == bulk.table.streams == 0
    heard = [
        {name: np.concatenate(audio).tobytes() for name, audio in bench.audio.items() if audio}
        for bench in (single, bulk)
    ]
    assert heard[0] == heard[1]


def stream_seeds() -> list[bytes]:
    """Calls that go well, and one of each deed."""
    plain = b"".join(bytes([number & 3, 0, 0]) for number in range(48))
    deeds = b"".join(
        bytes([number & 1, 0, 0, number & 3, 8 + number % 8, 16 * number % 256])
        for number in range(40)
    )
    return [b"\0" + plain, b"\xff" + plain, b"\0" + deeds, b"\xff" + deeds]
