"""Plays many telephone calls into a daemon in real time and reports loss, latency and load.

    python -m tests.bench.streams --streams 60 --seconds 60

The calls are µ-law at 8 kHz in messages of 20 ms over PUB, which does not wait: what the daemon
cannot take is lost, and seen as a gap. Speech fills about 40 % of each call. The generator is a
process of its own; both share the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import zmq

from serd.audio import pcm
from serd.protocol.writer import TapWriter
from serd.types import Encoding, Int16Array
from tests.daemon import Json, running_daemon
from tests.speech import demo_speech
from tests.taps import Collector

RATE_HZ = 8000
BLOCK_MS = 20
BLOCK = RATE_HZ * BLOCK_MS // 1000
SPEECH_SHARE = 0.4


def _call(speech: Int16Array, seconds: float, rng: np.random.Generator) -> Int16Array:
    """Turns of speech and silence, of random lengths."""
    parts: list[Int16Array] = []
    total = 0
    while total < seconds * RATE_HZ:
        talk = int(rng.gamma(4.0, 1.0) * RATE_HZ)
        start = int(rng.integers(0, max(1, len(speech) - talk)))
        pause = int(rng.gamma(4.0, (1 / SPEECH_SHARE - 1)) * RATE_HZ)
        parts += [speech[start : start + talk], np.zeros(pause, np.int16)]
        total += talk + pause
    return np.concatenate(parts)[: int(seconds * RATE_HZ)]


def _generate(endpoint: str, streams: int, seconds: float, done: object) -> None:
    rng = np.random.default_rng(1)
    speech = demo_speech(RATE_HZ)
    speech = speech[np.abs(speech) > 0]
    messages = []
    for number in range(streams):
        writer = TapWriter(f"call-{number}", RATE_HZ, Encoding.MULAW, 1)
        audio = pcm.encode(_call(speech, seconds, rng).reshape(-1, 1), Encoding.MULAW)
        call = [writer.start()]
        call += [writer.audio(audio[at : at + BLOCK]) for at in range(0, len(audio), BLOCK)]
        call.append(writer.end())
        messages.append(call)
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.sndhwm = 0
    socket.connect(endpoint)
    time.sleep(1.0)
    # Calls do not begin in step: each has its own phase within a block.
    phases = sorted((number * BLOCK_MS / 1000 / streams, number) for number in range(streams))
    began = time.monotonic()
    late = 0.0
    for turn in range(max(len(call) for call in messages)):
        for phase, number in phases:
            if turn >= len(messages[number]):
                continue
            due = began + turn * BLOCK_MS / 1000 + phase
            wait = due - time.monotonic()
            if wait > 0.001:
                time.sleep(wait)
            late = max(late, -wait)
            socket.send_multipart(messages[number][turn])
    socket.close(linger=5000)
    context.term()
    done.put(late)  # type: ignore[attr-defined]  # a multiprocessing queue


def run(streams: int, seconds: float) -> Json:
    """One measurement."""
    with tempfile.TemporaryDirectory() as folder:
        source = '[[sources]]\ntype = "zmq"\nsocket = "SUB"\nbind = "tcp://127.0.0.1:*"\n'
        with running_daemon(Path(folder), source) as daemon:
            collector = Collector(daemon.events)
            spawn = multiprocessing.get_context("spawn")
            done = spawn.Queue()
            generator = spawn.Process(target=_generate, args=(daemon.tap, streams, seconds, done))
            cpu, began, memory = daemon.cpu_s(), time.monotonic(), daemon.memory_kib()
            generator.start()
            late_s = done.get(timeout=seconds + 120)
            generator.join(30)
            elapsed = time.monotonic() - began
            collector.wait_closed(
                (f"call-{number}" for number in range(streams)), timeout_s=seconds + 60
            )
            used, grown = daemon.cpu_s() - cpu, daemon.memory_kib() - memory
            daemon.stop()
            counts = collector.wait_for("daemon", "stopped")["counts"]
            collector.close()
    emotions = collector.of_type("emotion")
    latency = np.array([event["latency_ms"]["total"] for event in emotions])
    return {
        "streams": streams,
        "seconds": seconds,
        "messages": counts["intake.messages"],
        "messages_lost": counts.get("intake.lost.messages", 0)
        + counts.get("intake.overload.messages", 0),
        "gaps": len(collector.of_type("gap")),
        "emotion_events": len(emotions),
        "latency_ms": {
            "p50": round(float(np.percentile(latency, 50)), 1),
            "p95": round(float(np.percentile(latency, 95)), 1),
            "p99": round(float(np.percentile(latency, 99)), 1),
            "max": round(float(latency.max()), 1),
        },
        "daemon_cores": round(used / elapsed, 3),
        "memory_grown_kib": grown,
        "generator_latest_ms": round(late_s * 1000, 1),
    }


def main() -> None:
    """Measure and print; exit 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    report = run(options.streams, options.seconds)
    print(json.dumps(report, indent=1))
    raise SystemExit(bool(report["messages_lost"] or report["gaps"]))


if __name__ == "__main__":
    main()
