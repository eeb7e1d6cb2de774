"""What a GPU brings, way by way, beside the CPU; how to run it stands in GPU.md beside this file.

    python -m tests.bench.gpu [--json FILE] [--minutes 6] [--provider cpu]

First the daemon's own choice: what its trial at the start keeps and leaves out (log lines). Then,
always with the largest difference to the CPU's results: the emotion model by batch size, in plain
runs, with places on the device, recorded, and each with tf32; one thread against two, which copy
for one batch while the other computes; the detector by rows. ``--provider cpu`` takes the same
path with the CPU for a device, to see that the program works. What the minutes do not suffice for
is left out and told.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from serd.inference.device import MEMORY
from serd.inference.manifest import (
    load_emotion_manifest,
    load_vad_manifest,
    resolve_model,
    verify_file,
    verify_unpadded_file,
)
from serd.inference.model import EmotionModel, calibrate
from serd.inference.providers import CPU, CUDA, CUDA_GRAPH, TF32, LiveSession, open_session
from serd.inference.runner import BoundRunner, PlainRunner, Runner
from serd.inference.trial import like_speech
from serd.inference.worker import SegmentJob
from serd.types import Float32Array, frame_samples
from serd.vad.silero_graph import rearrange_with_tables
from serd.vad.silero_network import RowNetwork, SileroNetwork, SileroRows
from serd.vad.silero_tables import SileroTables

RATE_HZ = 8000
SAMPLES = 3 * RATE_HZ
CONTEXT = 32
BATCHES = (1, 8, 32, 128, 256)
ROWS = (64, 256, 1024, 4096, 10_000, 50_000)
STEPS = 20

Figures = dict[str, Any]


def median_ms(work: Callable[[], object], at_most_s: float = 2.0) -> float:
    """Wall time of `work`, once it has run three times."""
    for _ in range(3):
        work()
    took: list[float] = []
    end = time.perf_counter() + at_most_s
    while len(took) < 50 and (time.perf_counter() < end or len(took) < 5):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return 1e3 * float(np.median(took))


def model_ways(provider: str) -> Iterator[tuple[str, Callable[[], Runner]]]:
    """Every way to run the graph for 8 kHz, by name."""
    manifest = load_emotion_manifest(resolve_model("serd-crnn"))
    path = verify_unpadded_file(manifest)
    assert path is not None, "serd-crnn has a graph for 8 kHz"
    output, columns = manifest.output.logits, len(manifest.labels)
    live = open_session(path, "cuda" if provider == CUDA else "cpu")

    def session(options: Mapping[str, str]) -> Any:
        return live.session if live.reopen is None else live.reopen(options)

    def bound(options: Mapping[str, str], captured: bool) -> Runner:
        return BoundRunner(session(options), output, columns, MEMORY[provider], captured)

    yield "plain", lambda: PlainRunner(session({}), output)
    yield "placed", lambda: bound({}, False)
    yield "recorded", lambda: bound(CUDA_GRAPH, True)
    yield "placed, tf32", lambda: bound(TF32, False)
    yield "recorded, tf32", lambda: bound({**TF32, **CUDA_GRAPH}, True)


def bench_model(provider: str, end: float) -> Iterator[Figures]:
    """Segments a second by way and batch size, and how far from the CPU's scores."""
    manifest = load_emotion_manifest(resolve_model("serd-crnn"))
    temperature = manifest.calibration.temperature
    on_cpu = EmotionModel.load(resolve_model("serd-crnn"), "cpu")
    speech = like_speech(BATCHES[-1], SAMPLES, RATE_HZ)
    audio = speech.astype(np.float32) / np.float32(32768)
    expected = on_cpu.score([SegmentJob(row, RATE_HZ, 0) for row in speech[:32]])
    for name, opened in model_ways(provider):
        try:
            used = opened()
            for batch in BATCHES:
                if time.monotonic() > end:
                    yield {"model": name, "batch": batch, "left out": "no time"}
                    continue
                feed = {manifest.input.audio: audio[:batch]}
                scores = calibrate(used.run(feed), temperature)
                count = min(batch, len(expected))
                took_ms = median_ms(partial(used.run, feed))
                yield {
                    "model": name,
                    "batch": batch,
                    "ms": round(took_ms, 3),
                    "segments_per_s": round(1e3 * batch / took_ms),
                    "differs": float(np.abs(scores[:count] - expected[:count]).max()),
                }
        except Exception as error:  # The runtime's exceptions share no base but Exception.
            yield {"model": name, "failed": str(error)}


def bench_threads(provider: str) -> Iterator[Figures]:
    """Batches of the daemon's size, one thread against two, as `EmotionModel` runs them."""
    device = "cuda" if provider == CUDA else "cpu"
    model = EmotionModel.load(resolve_model("serd-crnn"), device, batch_sizes=(1, 8, 32, 128))
    twin = model.twin()
    began = time.perf_counter()
    model.warm_up()
    yield {"warm_up_s": round(time.perf_counter() - began, 2)}
    jobs = [SegmentJob(row, RATE_HZ, 0) for row in like_speech(128, SAMPLES, RATE_HZ)]
    batches = 24

    def work(one: EmotionModel, count: int) -> None:
        for _ in range(count):
            one.score(jobs)

    with ThreadPoolExecutor(2) as threads:
        for used in ([model], [model, twin]):
            list(threads.map(work, used, [1] * len(used)))
            began = time.perf_counter()
            list(threads.map(work, used, [batches // len(used)] * len(used)))
            took_s = time.perf_counter() - began
            rate = round(batches * len(jobs) / took_s)
            yield {"threads": len(used), "batch": len(jobs), "segments_per_s": rate}


def vad_ways(provider: str, rows: int) -> Iterator[tuple[str, Callable[[], RowNetwork]]]:
    """Every way to run the detector for `rows` rows, the CPU's first."""
    published = verify_file(load_vad_manifest(resolve_model("silero-vad"))).read_bytes()
    model = rearrange_with_tables(published, RATE_HZ, CONTEXT)

    def tables(options: Mapping[str, str], captured: bool) -> RowNetwork:
        live: LiveSession = open_session(model, "cuda" if provider == CUDA else "cpu")
        session = live.reopen(options) if live.reopen and options else live.session
        return SileroTables(session, RATE_HZ, rows, CONTEXT, MEMORY[provider], captured)

    yield "cpu", lambda: SileroRows(SileroNetwork.open(published, RATE_HZ, 1), rows)
    yield "tables", lambda: tables({}, False)
    yield "tables, recorded", lambda: tables(CUDA_GRAPH, True)


def bench_vad(provider: str, end: float) -> Iterator[Figures]:
    """Microseconds a frame by way and rows, and how far from the CPU's probabilities."""
    size = frame_samples(RATE_HZ)
    speech = like_speech(64, (STEPS + 1) * size, RATE_HZ)
    for rows in ROWS:
        expected: Float32Array | None = None
        at = np.arange(rows)
        heard = speech[at % len(speech)]
        for name, opened in vad_ways(provider, rows):
            if time.monotonic() > end:
                yield {"detector": name, "rows": rows, "left out": "no time"}
                continue
            try:
                network = opened()
                took_s, found = [], []
                for step in range(1, STEPS + 1):
                    context = heard[:, step * size - CONTEXT : step * size]
                    frames = heard[:, step * size : (step + 1) * size]
                    began = time.perf_counter()
                    for first in range(0, rows, network.call_rows):
                        call = slice(first, first + network.call_rows)
                        found.append(network.step(at[call], context[call], frames[call]).copy())
                    took_s.append(time.perf_counter() - began)
            except Exception as error:  # The runtime's exceptions share no base but Exception.
                yield {"detector": name, "rows": rows, "failed": str(error)}
                continue
            heard_now = np.concatenate(found)
            expected = heard_now if expected is None else expected
            step_s = float(np.median(took_s))
            yield {
                "detector": name,
                "rows": rows,
                "ms_a_step": round(1e3 * step_s, 3),
                "us_a_frame": round(1e6 * step_s / rows, 3),
                "rows_in_real_time": round(rows * 0.032 / step_s),
                "differs": float(np.abs(heard_now - expected).max()),
            }


def main() -> None:
    """Measure, print a line of JSON a figure, and write all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    provider = CUDA if arguments.provider == "cuda" else CPU
    began, span_s = time.monotonic(), 60 * arguments.minutes
    figures: list[Figures] = []
    # The detector has what the model leaves of its two thirds.
    for part in (
        bench_threads(provider),
        bench_model(provider, began + 2 * span_s / 3),
        bench_vad(provider, began + span_s),
    ):
        for figure in part:
            print(json.dumps(figure), flush=True)
            figures.append(figure)
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
