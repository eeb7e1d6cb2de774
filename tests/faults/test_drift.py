"""Taps whose sample clocks are 500 ppm fast or slow, for hours; clocks are driven.

`SERD_FAULTS_HOURS` says how many (``make faults``: 8).
"""

from __future__ import annotations

import os

import numpy as np

from serd.rows import Open
from serd.sources.burst import Burst
from serd.sources.intake import IntakeOptions
from serd.types import Encoding
from tests.sources.intake_bench import Bench, FakeSource, Tap

HOURS = float(os.environ.get("SERD_FAULTS_HOURS", "1"))
RATE_HZ = 8000
BLOCK = 3200
PPM = 500
# Half of them fast, half slow.
STREAMS = 16

_NS = 1_000_000_000


def _tap_of(bench: Bench, row: int) -> int:
    name, _ = bench._open[RATE_HZ, row]
    return int(name.removeprefix("call-"))


def test_hours_of_a_clock_that_is_wrong_move_no_position_and_no_time() -> None:
    bench = Bench(IntakeOptions(max_streams=STREAMS), source=FakeSource(lossless=False))
    pool = bench.pools[RATE_HZ]
    taps = [Tap(f"call-{number}") for number in range(STREAMS)]
    # Samples that the tap takes in a true second.
    rates = [RATE_HZ * (1 + (PPM if n % 2 else -PPM) * 1e-6) for n in range(STREAMS)]
    silence = np.zeros(BLOCK, np.int16)
    begin_ns, worst_ns = bench.clock.unix_ns(), 0
    while (passed_s := (bench.clock.unix_ns() - begin_ns) / _NS) < HOURS * 3600:
        messages = []
        for tap, rate in zip(taps, rates, strict=True):
            while (tap.index + BLOCK) / rate <= passed_s:
                captured_ns = begin_ns + round(tap.index / rate * _NS)
                messages.append(tap.audio(silence, 0, Encoding.MULAW, captured_ns))
        if messages:
            burst = Burst(*map(list, zip(*messages, strict=True)))
            now_ns = bench.clock.monotonic_ns()
            assert bench.table.messages(bench.source, burst, (), now_ns) == len(messages)
        bench.read()
        for row in np.flatnonzero(pool.active).tolist():
            index = int(pool.ring.written[row]) - BLOCK // 2
            true_ns = begin_ns + round(index / rates[_tap_of(bench, row)] * _NS)
            worst_ns = max(worst_ns, abs(pool.captured_ns(row, index) - true_ns))
        for audio in bench.audio.values():
            audio.clear()
        bench.clock.advance(BLOCK / RATE_HZ)
        bench.table.sweep(bench.clock.monotonic_ns())
    for row in range(STREAMS):
        number = _tap_of(bench, row)
        assert taps[number].index == pool.ring.written[row]
        assert abs(taps[number].index - rates[number] * passed_s) <= 2 * BLOCK
    drift = abs(taps[0].index - taps[1].index)
    assert drift > 0.9 * 2 * PPM * 1e-6 * HOURS * 3600 * RATE_HZ
    # Within a block the wrong clock counts, and no longer.
    assert worst_ns < 1_000_000
    assert {type(control) for _, control in bench.controls} == {Open}
    assert not any(name.startswith(("lost", "overload", "late")) for name in bench.table.counts)
