"""Runs the daemon on the same calls: a real one, over its sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from serd.bench.child import ChildDaemon, child_daemon
from serd.bench.generator import CAPACITY
from serd.bench.matching import match
from serd.bench.material import Material
from serd.bench.process import sample
from serd.bench.receiver import Receiver
from serd.bench.tape import Line, Tape, stream_number
from serd.bench.zmtp import Connection
from serd.protocol.events import EmotionEvent
from tests.bench.peers.calls import schedule, seconds
from tests.bench.peers.theirs import Segments
from tests.bench.peers.trial import GRACE_S, Arrived, Trial, judge_trial, playing

_DRAIN_S = 120.0


@contextmanager
def _daemon(socket: str, count: int) -> Iterator[tuple[ChildDaemon, Receiver]]:
    overrides = [f"streams.max_streams={max(count, 8)}"]
    with child_daemon(overrides=overrides, socket=socket) as daemon:
        ready = daemon.wait_ready()
        with Receiver(str(ready["publish"][0])) as receiver:
            yield daemon, receiver


def _cpu_s(daemon: ChildDaemon) -> float:
    return sample(daemon.process.pid, time.monotonic_ns()).cpu_s


def run_live(calls: Material, count: int) -> Trial:
    """`count` streams in real time, over a SUB socket, to a subscriber."""
    streams = schedule(count, calls)
    expected = calls.expect(streams)
    with _daemon("SUB", count) as (daemon, receiver):
        before = _cpu_s(daemon)
        with playing(daemon.tap, streams, calls) as played:
            receiver.wait_closed(count, GRACE_S)
            cpu_s = _cpu_s(daemon) - before
    matched = match(expected, receiver)
    came = matched.found
    arrived = Arrived(expected.stream[came], expected.decided[came], matched.at_ns[came])
    return judge_trial(streams, calls, played, arrived, int((~came).sum()), cpu_s)


def run_offline(calls: Material, count: int) -> tuple[float, list[Segments]]:
    """`count` streams as fast as the daemon takes them, over a PULL socket.

    Returns
    -------
    float
        Processor seconds for a second of a channel, receiving and publishing included.
    list of Segments
        Of each conversation, from the first stream that played it.
    """
    streams = schedule(count, calls, taps=1)
    silent = calls.conversations.silent
    tape = Tape(streams, calls.audio, silent, calls.encoding, calls.sample_rate_hz, Line(), seed=1)
    with _daemon("PULL", count) as (daemon, receiver):
        connection = Connection(daemon.tap, True, CAPACITY)
        before = _cpu_s(daemon)
        for tick in range(streams.ticks):
            for piece in tape.tick(tick, 0):
                connection.send(piece.content, piece.messages)
        connection.finish(_DRAIN_S)
        receiver.wait_closed(count, _DRAIN_S)
        cpu_s = _cpu_s(daemon) - before
        connection.close()
    segments: list[Segments] = [[] for _ in calls.audio]
    for _, event in receiver.events("emotion"):
        assert isinstance(event, EmotionEvent), "selected by topic"
        number = stream_number(event.stream)
        if number < len(segments):
            segments[number].append((event.start_sample, event.end_sample, event.label))
    return cpu_s / (count * seconds(calls)), segments
