"""Calls in real time, or faster: ``python -m tests.faults.tap …``.

Each call is the shipped recording over and over, every call from another place in it, in blocks of
100 ms. Sends until it is killed, or until so many seconds of audio are out.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import zmq

from serd.audio import pcm
from serd.protocol.writer import TapWriter
from serd.types import Encoding
from tests.speech import demo_speech

_RATE_HZ = 8000
_BLOCK = _RATE_HZ // 10


def main() -> None:
    """Send."""
    parser = argparse.ArgumentParser()
    parser.add_argument("endpoint")
    parser.add_argument("--socket", choices=["PUSH", "PUB"], default="PUSH")
    parser.add_argument("--name", default="call")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--speed", type=float, default=1.0, help="seconds of audio a second")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of audio, then end")
    given = parser.parse_args()
    speech = pcm.encode(demo_speech(_RATE_HZ).reshape(-1, 1), Encoding.MULAW)
    blocks = [speech[at : at + _BLOCK] for at in range(0, len(speech) - _BLOCK, _BLOCK)]
    writers = [
        TapWriter(f"{given.name}-{number:03}", _RATE_HZ, Encoding.MULAW)
        for number in range(given.streams)
    ]
    offsets = np.random.default_rng(7).integers(0, len(blocks), given.streams).tolist()
    with zmq.Context() as context, context.socket(getattr(zmq, given.socket)) as socket:
        socket.sndhwm = 100_000
        socket.linger = 60_000
        if given.socket == "PUB":
            # A publisher drops what nobody subscribes to yet.
            monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            socket.connect(given.endpoint)
            monitor.poll(30_000)
            socket.disable_monitor()
            monitor.close(linger=0)
        else:
            socket.connect(given.endpoint)
        for writer in writers:
            socket.send_multipart(writer.start())
        began = time.monotonic()
        number = 0
        while number * 0.1 < given.seconds:
            time.sleep(max(0.0, began + number * 0.1 / given.speed - time.monotonic()))
            for writer, offset in zip(writers, offsets, strict=True):
                block = blocks[(number + offset) % len(blocks)]
                socket.send_multipart(writer.audio(block, time.time_ns()))
            number += 1
        for writer in writers:
            socket.send_multipart(writer.end())


if __name__ == "__main__":
    main()
