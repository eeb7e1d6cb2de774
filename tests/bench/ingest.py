"""What a message costs the ingest thread: in bulk, and one by one.

    python -m tests.bench.ingest

Calls at 8 kHz in messages of 20 ms, all at once in bursts of several sizes, from a PUSH socket in
the same process. Both ways take turns over the same messages, and what counts is their ratio. The
times are the CPU time of the thread alone: what the threads of ZeroMQ do is not in them.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import uuid
from collections.abc import Callable, Sequence

import numpy as np
import zmq

from serd.channel import Waker
from serd.clock import SystemClock
from serd.protocol.tap import Header, encode_header
from serd.rows import RowPool
from serd.sources.burst import Burst
from serd.sources.intake import IntakeOptions, StreamTable
from serd.sources.zmq import ZmqOptions, ZmqSource
from serd.types import Encoding
from tests.sources.intake_bench import FakeSource

_RATE_HZ = 8000
_BLOCK = 160

Message = tuple[bytes, bytes, bytes]


class _Calls:
    """Messages of many calls, as they come."""

    def __init__(self, streams: int, encoding: Encoding) -> None:
        self._ids = [f"call-{number}".encode() for number in range(streams)]
        self._encoding = encoding
        self._round = 0
        self._rng = np.random.default_rng(1)

    def next(self) -> list[Message]:
        """20 ms of each call."""
        at = self._round * _BLOCK
        captured_ns = 10**18 + self._round * 20_000_000
        header = Header(self._encoding, 1, 0, _RATE_HZ, self._round, at, captured_ns)
        raw = encode_header(header)
        self._round += 1
        size = _BLOCK * self._encoding.sample_bytes
        return [(stream, bytes(bytearray(raw)), self._rng.bytes(size)) for stream in self._ids]


class _Table:
    """An intake whose rows are read at once by nobody in particular."""

    def __init__(self, streams: int) -> None:
        self.pool = RowPool(_RATE_HZ, streams, 4 * _RATE_HZ)
        self.table = StreamTable(
            {_RATE_HZ: self.pool}, IntakeOptions(streams), SystemClock(), lambda *_: None
        )

    def consume(self) -> None:
        """Let go of all samples, and of the controls."""
        self.pool.ring.released[:] = self.pool.ring.written
        for row in range(self.pool.rows):
            self.pool.next_control(row)


def _timed(work: Callable[[], object]) -> float:
    begin = time.thread_time_ns()
    work()
    return time.thread_time_ns() - begin


def _prepared(
    calls: _Calls, single: _Table, bulk: _Table, size: int, rounds: int
) -> tuple[float, float]:
    """Microseconds a message of the intake alone: one by one, in bulk."""
    source = FakeSource()
    costs: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        messages = calls.next()
        bursts = [
            Burst(*map(list, zip(*part, strict=True)))
            for part in (messages[at : at + size] for at in range(0, len(messages), size))
        ]

        def one_by_one(messages: Sequence[Message] = messages) -> None:
            for parts in messages:
                single.table.message(source, parts, (), 0)

        def in_bulk(bursts: Sequence[Burst] = bursts) -> None:
            for burst in bursts:
                bulk.table.messages(source, burst, (), 0)

        for work, cost, bench in ((one_by_one, costs[0], single), (in_bulk, costs[1], bulk)):
            cost.append(_timed(work) / len(messages) / 1000)
            bench.consume()
    assert np.array_equal(single.pool.ring.samples, bulk.pool.ring.samples)
    return statistics.median(costs[0]), statistics.median(costs[1])


def _through_sockets(
    calls: _Calls, single: _Table, bulk: _Table, rounds: int
) -> tuple[float, float]:
    """Microseconds a message from the socket to the row: one by one, in bulk."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    endpoint = f"inproc://{uuid.uuid4()}"
    source = ZmqSource(ZmqOptions("in", "PULL", bind=(endpoint,), receive_hwm=0), context)
    source.open(Waker())
    [pull] = source.pollables()
    assert isinstance(pull, zmq.Socket)
    push = context.socket(zmq.PUSH)
    push.sndhwm = 0
    push.connect(endpoint)
    costs: tuple[list[float], list[float]] = ([], [])

    def one_by_one() -> None:
        try:
            while True:
                single.table.message(source, pull.recv_multipart(zmq.NOBLOCK), (), 0)
        except zmq.Again:
            return

    def in_bulk() -> None:
        while source.service(0, bulk.table) is not None:
            pass

    for _ in range(rounds):
        messages = calls.next()
        for work, cost, bench in ((one_by_one, costs[0], single), (in_bulk, costs[1], bulk)):
            for parts in messages:
                push.send_multipart(parts)
            cost.append(_timed(work) / len(messages) / 1000)
            bench.consume()
    assert np.array_equal(single.pool.ring.samples, bulk.pool.ring.samples)
    push.close()
    source.close()
    context.term()
    return statistics.median(costs[0]), statistics.median(costs[1])


def _print(what: str, costs: tuple[float, float]) -> None:
    single, bulk = costs
    print(f"{what:<34}{single:>12.2f}{bulk:>10.2f}{single / bulk:>8.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=25, help="20 ms of every call each")
    arguments = parser.parse_args()
    streams, rounds = arguments.streams, arguments.rounds
    print(f"{'µs a message':<34}{'one by one':>12}{'bulk':>10}{'ratio':>8}")
    for encoding, size in itertools.product(
        (Encoding.MULAW, Encoding.S16LE), (4, 16, 64, 256, streams)
    ):
        calls = _Calls(streams, encoding)
        what = f"{encoding.name.lower()}, bursts of {size}"
        _print(what, _prepared(calls, _Table(streams), _Table(streams), size, rounds))
    calls = _Calls(streams, Encoding.MULAW)
    costs = _through_sockets(calls, _Table(streams), _Table(streams), rounds)
    _print("mulaw, with the socket", costs)


if __name__ == "__main__":
    main()
