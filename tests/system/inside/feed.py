"""Plays the shipped recording in real time, over and over, as calls that never end.

Usage: feed.py ENDPOINT STREAM…
"""

import sys
import time
from importlib import resources

import numpy as np
import soundfile
import zmq

from serd.protocol.writer import TapWriter
from serd.types import Encoding

BLOCK_S = 0.02

endpoint, *streams = sys.argv[1:]
recording = resources.files("serd") / "demo" / "two-voices.flac"
speech, rate_hz = soundfile.read(str(recording), dtype="int16", always_2d=True)
block = round(rate_hz * BLOCK_S)
blocks = [speech[at : at + block, :1] for at in range(0, len(speech) - block, block)]

socket = zmq.Context().socket(zmq.PUSH)
socket.connect(endpoint)
writers = [TapWriter(stream, rate_hz, Encoding.S16LE) for stream in streams]
for writer in writers:
    socket.send_multipart(writer.start())
began = time.monotonic()
number = 0
while True:
    for writer in writers:
        samples = np.ascontiguousarray(blocks[number % len(blocks)])
        socket.send_multipart(writer.audio(samples))
    number += 1
    time.sleep(max(0.0, began + number * BLOCK_S - time.monotonic()))
