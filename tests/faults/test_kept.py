"""What a call leaves behind in the daemon once it is over: nothing. No clock, no sockets.

Memory of a whole process is noisy; here every byte that Python keeps is counted.
"""

from __future__ import annotations

import gc
import tracemalloc
from itertools import pairwise

import numpy as np

from serd.protocol.events import Event, encode, topic
from serd.protocol.replay import StoredEvent
from serd.protocol.tap import decode_stream_id
from serd.sinks.lastvalues import LastValues
from serd.sinks.ring import EventRing
from serd.sinks.stamper import Stamper
from serd.types import Encoding
from tests.runtime.shedding_bench import Bench
from tests.sources.intake_bench import Tap

RATE_HZ = 8000
AT_ONCE = 4
CALLS = 100
ROUNDS = 10


class _Published:
    """Stamps, keeps and forgets events as the publisher does."""

    def __init__(self, bench: Bench) -> None:
        self.stamper = Stamper("0" * 16, bench.clock)
        self.ring = EventRing(50)
        self.last_values = LastValues()

    def take(self, event: Event) -> None:
        last_of_stream = self.stamper.stamp(event)
        stored = StoredEvent(event.cursor, topic(event), encode(event))
        self.ring.append(stored)
        if last_of_stream:
            self.last_values.forget(event.stream)  # type: ignore[union-attr]  # only streams end
        else:
            self.last_values.keep(stored)


def _calls(bench: Bench, published: _Published, first: int) -> None:
    speech = (np.arange(RATE_HZ) % 251 * 90).astype(np.int16)
    for number in range(first, first + CALLS, AT_ONCE):
        taps = []
        for call in range(number, number + AT_ONCE):
            # Some names come again, most do not.
            tap = Tap(f"call-{call if call % 5 else call % 50}")
            labels = {"queue": f"queue-{call}"}
            bench.table.message(
                bench.source, tap.metadata(call_id=f"id-{call}", labels=labels), (), 0
            )
            bench.table.message(bench.source, tap.audio(speech, 0, Encoding.MULAW), (), 0)
            taps.append(tap)
        bench.step()
        for call, tap in enumerate(taps):
            if call % AT_ONCE == 1:
                bench.clock.advance(60)
                bench.table.sweep(bench.clock.monotonic_ns())
            elif call % AT_ONCE == 2:
                bench.table.message(bench.source, tap.metadata(roles=["agent"]), (), 0)
                bench.table.close_source(bench.source, "end")
            else:
                bench.table.message(bench.source, tap.plain(2), (), 0)
        bench.step()
        for event in bench.events:
            published.take(event)
        bench.events.clear()
        bench.jobs.clear()
        bench.detector.heard.clear()


def test_a_call_that_is_over_leaves_nothing_behind() -> None:
    bench = Bench(rows=2 * AT_ONCE, lossless=True)
    published = _Published(bench)
    kept = []
    tracemalloc.start()
    try:
        # The first rounds fill what is bounded: the ring of events, calls that fell silent.
        for number in range(0, ROUNDS * CALLS, CALLS):
            _calls(bench, published, number)
            # Bounded, at more names than this test has time for.
            decode_stream_id.cache_clear()
            gc.collect()
            kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert bench.table.streams == 0
    assert published.stamper.last_cursor > ROUNDS * CALLS
    # A single number that was kept would be 32 bytes, in every round; tables grow in some.
    assert min(later - earlier for earlier, later in pairwise(kept[-4:])) / CALLS < 16, kept
