"""What one emotion event costs, stage by stage, from the model's answer to the subscriber.

    python -m tests.bench.events

Prints microseconds of processor time an event and each stage's share: figures of one machine at
one moment, to be compared with each other and with those of another version run beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from serd.channel import Channel, Overflow, Waker
from serd.client import Subscriber
from serd.clock import SystemClock
from serd.inference.worker import Result, SegmentJob
from serd.protocol.events import EmotionEvent, Event, SegmentLatency, decode, encode, topic
from serd.protocol.replay import StoredEvent
from serd.rows import StreamInfo
from serd.runtime.assembler import Assembler
from serd.runtime.judge import Judge
from serd.runtime.level import Level
from serd.runtime.line import (
    ModelFacts,
    SegmentContext,
    Span,
    Utterance,
    emotion_event,
    rounded_scores,
)
from serd.segmenter import Segment
from serd.sinks.journal.writer import Journal, JournalOptions
from serd.sinks.lastvalues import LastValues
from serd.sinks.publisher import Publisher, PublisherOptions
from serd.sinks.ring import EventRing
from serd.sinks.stamper import Stamper, new_run_id
from serd.types import Role

BATCH = 16
EVENTS = 4000
REPEATS = 7
LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised", "other")
MODEL = ModelFacts("bench-1@sha256:0123456789ab", LABELS, 0.3)
INFO = StreamInfo("call/0", "tap", 0, 1, 8000, "mulaw", Role.CUSTOMER, "c-1", {"queue": "sales"})
SEGMENT = Segment(3, 5, 1, 98_720, 122_720, False, 0.93, 122_720)
SPAN = Span(98_720, 122_720, 8000, 1_769_851_815_340_000_000)
LATENCY = SegmentLatency(wait=1.0, inference=2.0, total=3.0)
RNG = np.random.default_rng(0)
AUDIO = (RNG.standard_normal(24_000) * 3000).astype(np.int16)
ROWS = RNG.dirichlet(np.ones(len(LABELS)), BATCH).astype(np.float32)


def spent_us(work: Callable[[], object], events: int = 1) -> float:
    """This thread's processor time for one of the events of a call; the least of some rounds."""
    calls = EVENTS // events // REPEATS
    rounds = []
    for _ in range(REPEATS):
        began = time.thread_time_ns()
        for _ in range(calls):
            work()
        rounds.append((time.thread_time_ns() - began) / calls / events / 1000)
    return min(rounds)


def table(title: str, whole: float, stages: dict[str, float]) -> None:
    """Print the stages of a whole, and what it takes beside them."""
    print(f"{title}: {whole:.1f} µs an event")
    for name, spent in [*stages.items(), ("the rest", whole - sum(stages.values()))]:
        print(f"  {name:<24}{spent:6.2f} µs {spent / whole:6.1%}")


def context(assembler: Assembler) -> SegmentContext:
    """A segment in its line."""
    return SegmentContext(INFO, assembler.reserve(1), Utterance(5), SEGMENT, SPAN, False, 0)


def emotion() -> EmotionEvent:
    """An event as the inference thread makes it."""
    scored = rounded_scores(LABELS, ROWS)[0]
    segment = context(Assembler(lambda _: None))
    return emotion_event(segment, MODEL, scored, Level.of(AUDIO), LATENCY)


def judging() -> None:
    """The inference thread's part: beside the stages, the order of events and their handing on."""
    channel: Channel[Event] = Channel("events", BATCH, Overflow.BLOCK, Waker())

    def emit(event: Event) -> None:
        channel.put(event)

    assembler = Assembler(emit)
    judge = Judge(assembler, SystemClock(), lambda: None)

    def batch() -> None:
        jobs = [SegmentJob(AUDIO, 8000, 0, context(assembler)) for _ in range(BATCH)]
        pairs = zip(jobs, ROWS, strict=True)
        judge.results([Result(job, row, 0, 0, BATCH, MODEL) for job, row in pairs])
        channel.take_all()

    segment, level = context(assembler), Level.of(AUDIO)
    scored = rounded_scores(LABELS, ROWS)[0]
    table(
        "inference thread",
        spent_us(batch, BATCH),
        {
            "level of 3 s": spent_us(partial(Level.of, AUDIO)),
            f"scores of {BATCH} together": spent_us(partial(rounded_scores, LABELS, ROWS), BATCH),
            "event": spent_us(partial(emotion_event, segment, MODEL, scored, level, LATENCY)),
        },
    )


@contextmanager
def publisher(path: Path | None = None) -> Iterator[tuple[Publisher, Channel[Event]]]:
    """A publisher on loopback, with a journal if there is a path for it."""
    waker = Waker()
    channel: Channel[Event] = Channel("events", EVENTS, Overflow.BLOCK, waker)
    options = PublisherOptions(("tcp://127.0.0.1:*",), linger_ms=0)
    run_id = new_run_id()
    journal = None
    if path is not None:
        journal = Journal(JournalOptions(path), SystemClock(), run_id)
        journal.open()
    running = Publisher(
        options, channel, waker, SystemClock(), run_id, EventRing(EVENTS), journal=journal
    )
    running.start()
    try:
        yield running, channel
    finally:
        running.stop()
        if journal is not None:
            journal.close()
        waker.close()


def thread_us(name: str) -> float:
    """Processor time that the thread of a name has used, by the kernel."""
    for comm in Path("/proc/self/task").glob("*/comm"):
        if comm.read_text().strip() == name:
            return int(comm.with_name("schedstat").read_text().split()[0]) / 1000
    raise LookupError(name)


def publishing() -> None:
    """The publisher's and the subscriber's part: beside the stages, waiting and sockets."""
    events = [emotion() for _ in range(EVENTS)]
    with (
        publisher() as (running, channel),
        Subscriber(running.endpoints[0], timeout_s=10) as subscriber,
    ):
        while not running.counts()["subscriptions"]:
            time.sleep(0.01)
        before = thread_us("serd-publish")
        for event in events:
            channel.put(event)
        while running.counts()["events_published"] < EVENTS:
            time.sleep(0.01)
        whole = (thread_us("serd-publish") - before) / EVENTS
        began = time.thread_time_ns()
        for _ in range(EVENTS):
            subscriber.receive(10)
        reading = (time.thread_time_ns() - began) / EVENTS / 1000
    event = events[-1]
    stamper, ring, last, cursor = (
        Stamper(new_run_id(), SystemClock()),
        EventRing(1000),
        LastValues(),
        count(1),
    )
    name, payload = topic(event), encode(event)

    def keep() -> None:
        stored = StoredEvent(next(cursor), name, payload)
        ring.append(stored)
        last.keep(stored)

    table(
        "publisher",
        whole,
        {
            "stamp": spent_us(partial(stamper.stamp, event)),
            "topic": spent_us(partial(topic, event)),
            "JSON": spent_us(partial(encode, event)),
            "ring and last values": spent_us(keep),
        },
    )
    table("subscriber", reading, {"JSON": spent_us(partial(decode, payload))})


def journalling() -> None:
    """What a journal adds: to the threads, and to the way of an event that comes alone."""
    for batch in (1, BATCH, 256):
        for with_journal in (False, True):
            with (
                tempfile.TemporaryDirectory() as folder,
                publisher(Path(folder) / "events.sqlite" if with_journal else None) as (
                    running,
                    channel,
                ),
                Subscriber(running.endpoints[0], timeout_s=10) as subscriber,
            ):
                while not running.counts()["subscriptions"]:
                    time.sleep(0.01)
                names = ["serd-publish", *(["serd-journal"] if with_journal else [])]
                before = {name: thread_us(name) for name in names}
                delays = []
                for _ in range(EVENTS // batch):
                    events = [emotion() for _ in range(batch)]
                    began = time.perf_counter_ns()
                    for event in events:
                        channel.put(event)
                    for _ in range(batch):
                        subscriber.receive(10)
                    delays.append((time.perf_counter_ns() - began) / 1e6)
                    time.sleep(0.002)
                spent = {name: (thread_us(name) - before[name]) / EVENTS for name in names}
            threads = ", ".join(f"{name} {us:.1f} µs an event" for name, us in spent.items())
            p50, p99 = np.percentile(delays, [50, 99])
            print(
                f"{batch} at once {'with' if with_journal else 'without'} a journal: {threads};"
                f" until the last is received {p50:.2f} ms, p99 {p99:.2f} ms"
            )


if __name__ == "__main__":
    judging()
    publishing()
    journalling()
