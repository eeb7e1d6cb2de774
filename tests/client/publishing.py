"""A publisher with a journal, to be killed: ``python -m tests.client.publishing …``.

Arguments: the journal, the endpoints of events and of replay. It publishes events of 100 streams
until its standard input ends, and then stops in order.
"""

from __future__ import annotations

import sys
import threading
from itertools import count
from pathlib import Path

from serd.channel import Channel, Overflow, Waker
from serd.clock import SystemClock
from serd.protocol.events import Event
from serd.sinks.journal.writer import Journal, JournalOptions
from serd.sinks.publisher import Publisher, PublisherOptions
from serd.sinks.ring import EventRing
from serd.sinks.stamper import new_run_id
from tests.protocol import examples as make

STREAMS = 100
_PAUSE_S = 0.002


def _until_told(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def main() -> None:
    """Publish until told to stop."""
    path, bind, replay_bind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    waker = Waker()
    channel: Channel[Event] = Channel("events", 1000, Overflow.BLOCK, waker)
    run_id = new_run_id()
    journal = Journal(JournalOptions(path), SystemClock(), run_id)
    journal.open()
    publisher = Publisher(
        PublisherOptions((bind,), (replay_bind,)),
        channel,
        waker,
        SystemClock(),
        run_id,
        EventRing(50_000),
        journal=journal,
    )
    publisher.start()
    stop = threading.Event()
    threading.Thread(target=_until_told, args=(stop,), daemon=True).start()
    for number in count():
        channel.put(make.emotion(f"call-{number % STREAMS}"))
        # In bursts, as batches of the model come.
        if number % 10 == 9 and stop.wait(_PAUSE_S):
            break
    publisher.stop(20)
    journal.close(20)


if __name__ == "__main__":
    main()
