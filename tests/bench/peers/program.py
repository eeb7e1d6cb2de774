"""The program that people write, in a process of its own: one thread and one detector a stream.

    python -m tests.bench.peers.program offline --peer silero-vad --network cut.onnx --audio a.npy
    python -m tests.bench.peers.program live --peer silero-vad --network cut.onnx --streams 8

Offline, a single thread takes the conversations one after the other: what the work costs when no
thread ever waits for another. Live, a thread receives the taps' messages and hands the audio to
the streams' threads over queues; results are kept, not sent.

It writes JSON lines to standard output; a live program is ended by closing its standard input.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import zmq

from serd.audio.g711 import decode_mulaw
from serd.bench.tape import stream_number
from serd.protocol.tap import Flag, decode_header
from serd.types import Int16Array
from tests.bench.peers.calls import BLOCK, RATE_HZ
from tests.bench.peers.judge import Judge, shipped_manifest
from tests.bench.peers.registry import Peer, peer
from tests.bench.peers.stream import Stream


def _say(report: dict[str, object]) -> None:
    print(json.dumps(report), flush=True)


def _leave(report: dict[str, object]) -> NoReturn:
    """Say the last word and end at once: threads of a program that has fallen behind are still at
    work, some inside native code, and asyncio's tasks would each complain of it.
    """
    _say(report)
    os._exit(0)


def offline(one: Peer, judge: Judge, conversations: Int16Array) -> NoReturn:
    """Every conversation through a stream of its own, as fast as it goes."""
    streams = [Stream(one.make(), judge, RATE_HZ) for _ in conversations]
    # A detector's runtime plans its memory with the first frames.
    warm = Stream(one.make(), judge, RATE_HZ)
    warm.feed(conversations[0][: 10 * BLOCK])
    judge.warm_up()
    began = time.process_time()
    results = []
    for stream, audio in zip(streams, conversations, strict=True):
        found = []
        for at in range(0, len(audio), BLOCK):
            found += stream.feed(audio[at : at + BLOCK])
        found += stream.feed(audio[:0], last=True)
        results.append(found)
    _leave(
        {
            "cpu_s": time.process_time() - began,
            "features_s": judge.features_s,
            "network_s": judge.network_s,
            "results": results,
        }
    )


class _Worker(threading.Thread):
    """Serves one stream from its queue."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(daemon=True)
        self.inbox: queue.SimpleQueue[tuple[bytes, bool]] = queue.SimpleQueue()
        self.results: list[tuple[int, int, int, str, int]] = []
        self.finished = False
        self._stream = stream

    def run(self) -> None:
        last = False
        while not last:
            payload, last = self.inbox.get()
            samples = decode_mulaw(np.frombuffer(payload, np.uint8))
            for result in self._stream.feed(samples, last=last):
                self.results.append((*result, time.monotonic_ns()))
        self.finished = True


def live(one: Peer, judge: Judge, streams: int) -> NoReturn:
    """Streams in real time, from their taps."""
    judge.warm_up()
    workers = [_Worker(Stream(one.make(), judge, RATE_HZ)) for _ in range(streams)]
    threading.Thread(target=_receive, args=(workers,), daemon=True).start()
    began = time.process_time()
    sys.stdin.read()
    _leave(
        {
            "cpu_s": time.process_time() - began,
            "unfinished": sum(not worker.finished for worker in workers),
            "results": [list(worker.results) for worker in workers],
        }
    )


def _receive(workers: list[_Worker]) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    # Nothing is ever dropped: a program that is too slow is late, without end.
    socket.rcvhwm = 0
    socket.subscribe(b"")
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    for worker in workers:
        worker.start()
    _say({"endpoint": f"tcp://127.0.0.1:{port}"})
    while True:
        name, header, payload = socket.recv_multipart()
        last = bool(decode_header(header).flags & Flag.END)
        workers[stream_number(name.decode())].inbox.put((payload, last))


def main() -> None:
    """Run as one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("offline", "live"))
    parser.add_argument("--peer", required=True)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--streams", type=int, default=1)
    options = parser.parse_args()
    judge = Judge(options.network, shipped_manifest())
    one = peer(options.peer)
    if options.mode == "offline":
        offline(one, judge, np.load(options.audio))
    else:
        live(one, judge, options.streams)


if __name__ == "__main__":
    main()
