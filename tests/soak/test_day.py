"""A day of audio through one daemon, as fast as it goes: flat memory, exact positions.

Runs for minutes, so only where SERD_SOAK is set to the hours of audio to play (``make soak``).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from serd.protocol.writer import TapWriter
from serd.types import Encoding, Int16Array
from tests.daemon import Json, running_daemon
from tests.speech import demo_speech
from tests.taps import Collector, Push

RATE_HZ = 8000
BLOCK = RATE_HZ // 10

HOURS = float(os.environ.get("SERD_SOAK", "0"))


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.skipif(not HOURS, reason="a soak test: set SERD_SOAK to the hours of audio")
def test_positions_stay_exact_and_memory_flat(tmp_path: Path) -> None:
    speech = demo_speech(RATE_HZ)
    # One period: the recording, and silence up to a whole number of blocks and minutes, so that
    # every period must give the same utterances at the same places.
    period = RATE_HZ * 60
    played: Int16Array = np.zeros(period, np.int16)
    played[: len(speech)] = speech[:period]
    periods = int(HOURS * 60)
    memory: list[int] = []
    # The ring of kept events is bounded too, but would take the whole day to fill.
    with running_daemon(tmp_path, overrides=["publish.keep_events=1000"]) as daemon:
        collector = Collector(daemon.events)
        push = Push(daemon.tap)
        writer = TapWriter("day", RATE_HZ, Encoding.S16LE, 1)
        push.send([list(writer.start())])
        for number in range(periods):
            for start in range(0, period, BLOCK):
                push.send([list(writer.audio(played[start : start + BLOCK].reshape(-1, 1)))])
            if number % 10 == 9:
                memory.append(daemon.memory_kib())
        push.send([list(writer.end())])
        collector.wait_closed(["day"], timeout_s=3600)
        push.close()
        print(f"resident KiB every ten minutes of audio: {memory[:5]} ... {memory[-5:]}")
        assert daemon.stop() == 0
        collector.close()

    # The detector comes to the first period without a past and to all others with the same one.
    turns: dict[int, list[Json]] = {}
    for event in collector.of_type("utterance"):
        turns.setdefault(event["end_sample"] // period, []).append(event)
    assert sorted(turns) == list(range(periods))
    for number in range(2, periods):
        for expected, event in zip(turns[1], turns[number], strict=True):
            shift = (number - 1) * period
            assert event["start_sample"] == expected["start_sample"] + shift
            assert event["end_sample"] == expected["end_sample"] + shift
            assert event["label"] == expected["label"]
    assert not collector.of_type("gap")
    closed = [event for event in collector.of_type("stream") if event["state"] == "closed"]
    assert closed[0]["at_sample"] == periods * period
    # The subscriber's queue and the caches have filled within the first hour.
    settled = memory[min(6, len(memory) - 1) :]
    assert max(settled) - settled[0] < 0.05 * settled[0]
