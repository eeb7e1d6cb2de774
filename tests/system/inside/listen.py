"""Prints every event as a JSON line with the monotonic time at which it came.

Usage: listen.py ENDPOINT
"""

import json
import sys
import time

import zmq

socket = zmq.Context().socket(zmq.SUB)
socket.subscribe("")
socket.connect(sys.argv[1])
while True:
    _, cursor, payload = socket.recv_multipart()
    came_s = time.monotonic()
    event = json.loads(payload)
    print(json.dumps({**event, "came_s": came_s}), flush=True)
