"""Calls that open and close for simulated days: memory that stays where the first day left it.

A day is 10,000 calls, each with a name, a call id and labels of its own; some end, some are cut off
and time out, some are refused, some begin anew under their old name. The daemon is a real one and
takes them as fast as it can. `SERD_FAULTS_DAYS` says how many days (``make faults``: 30).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serd.audio import pcm
from serd.protocol.tap import Metadata
from serd.protocol.writer import TapWriter
from serd.types import Encoding, Int16Array, Role
from tests.fakes import wait_until
from tests.faults.processes import Service, pushing
from tests.speech import demo_speech
from tests.taps import Collector

DAYS = int(os.environ.get("SERD_FAULTS_DAYS", "5"))
CALLS_A_DAY = int(os.environ.get("SERD_FAULTS_CALLS_A_DAY", "1000"))
RATE_HZ = 8000
# Calls that are open at once.
AT_ONCE = 50
# So many calls and every row has been used over its whole length, and every cache is full.
WARM = 2000


def _call(number: int, speech: Int16Array) -> Iterator[list[bytes]]:
    """One call of a second and a half: what is said depends on its number."""
    encoding = (Encoding.MULAW, Encoding.ALAW, Encoding.S16LE)[number % 3]
    role = Role.AGENT if number % 7 == 3 else Role.CUSTOMER
    name = f"call-{number}" if number % 5 else f"line-{number % 100}"
    rate_hz = 16_000 if number % 2 else RATE_HZ
    writer = TapWriter(name, rate_hz, encoding)
    labels = {"queue": f"queue-{number}", "caller": f"{number:012}"}
    yield writer.start(Metadata(call_id=f"id-{number}", roles=(role,), labels=labels))
    start = number * 997 % (len(speech) - 2 * RATE_HZ)
    block = RATE_HZ // 4
    for at in range(start, start + 6 * block, block):
        yield writer.audio(pcm.encode(speech[at : at + block].reshape(-1, 1), encoding))
    if number % 10 == 9:
        yield writer.metadata(Metadata(labels={"late": f"{number}"}))
    if number % 13:
        yield writer.end()


def _day(day: int, speech: Int16Array) -> Iterator[list[bytes]]:
    first = day * CALLS_A_DAY
    for number in range(first, first + CALLS_A_DAY, AT_ONCE):
        calls = [_call(one, speech) for one in range(number, number + AT_ONCE)]
        while calls:
            going = []
            for call in calls:
                message = next(call, None)
                if message is not None:
                    yield message
                    going.append(call)
            calls = going


@pytest.mark.timeout(60 + DAYS * CALLS_A_DAY // 20)
def test_memory_stays_where_the_first_day_left_it(tmp_path: Path) -> None:
    speech = demo_speech(RATE_HZ)
    overrides = (
        "streams.idle_timeout_s=0.5",
        "streams.max_streams=100",
        # Bounded memory that would take longer than a day to fill.
        "publish.keep_events=1000",
        "streams.backlog_s=0.5",
    )
    memory: list[int] = []
    # One heap for all threads: which thread's was used last would be all that one sees.
    environ = {"MALLOC_ARENA_MAX": "1"}
    with Service(tmp_path, overrides, environ=environ) as service, pushing(service.pull) as push:
        beats = Collector(service.events, "daemon.heartbeat")
        for day in range(DAYS):
            for message in _day(day, speech):
                push.send_multipart(message)
            seen = len(beats.events)
            wait_until(
                lambda seen=seen: any(beat["streams"] == 0 for beat in beats.events[seen:]),  # type: ignore[misc]  # bound at once
                "the day's last call to be closed",
                120,
            )
            memory.append(service.daemon.memory_kib())
        messages = beats.events[-1]["counts"]["intake.messages"]
        print(f"resident KiB after each of {DAYS} days of {CALLS_A_DAY} calls: {memory}")
        beats.close()
        assert messages > 6 * DAYS * CALLS_A_DAY
        assert service.daemon.stop() == 0
        # Nothing waits for ever either.
        assert service.daemon.logged("stopped")[0]["drained"] is True
    # Allocators give and take some pages; what is kept of every call shows between the ends.
    settled = memory[-(-WARM // CALLS_A_DAY) :]
    third = max(1, len(settled) // 3)
    early, late = np.median(settled[:third]), np.median(settled[-third:])
    calls = CALLS_A_DAY * (len(settled) - third)
    print(f"{1024 * (late - early) / calls:.1f} bytes a call over {calls} calls")
    # Over a few thousand calls the heap's own steps, of 10 MiB and more, are all that one sees.
    tolerated = 2048 + 0.02 * early if calls > 50_000 else 32 * 1024
    assert late - early < tolerated, memory
