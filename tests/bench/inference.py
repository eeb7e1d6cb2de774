"""What a segment of 8 kHz speech costs, by every way that it could take, side by side.

    python -m tests.bench.inference

In each round every way runs once, in turn, so that whatever else the machine does falls on all.
Times are CPU time of the process, so a second thread shows what it costs and, in the column of
wall time, what it brings. The first way is the one before there was a graph without padding: up to
16 kHz by soxr, padded to the window, in float32, four at a time; the ratios are to that one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import soxr

from serd.audio.resample import QUALITY, to_model_rate
from serd.inference.manifest import load_emotion_manifest, resolve_model, verify_file
from serd.inference.model import EmotionModel
from serd.inference.providers import open_session
from serd.inference.worker import SegmentJob
from serd.types import Int16Array

RATE_HZ = 8000
WINDOW = 3 * RATE_HZ
HOP = RATE_HZ
BATCHES = (1, 2, 4, 8, 16)

Way = tuple[str, Callable[[], object], int]
"""What it is called, what it does, and to how many segments."""


def _mix(rng: np.random.Generator, utterances: int) -> list[int]:
    """Lengths of the segments of utterances that last 2.4 s in the mean, some of them 8 s."""
    lengths: list[int] = []
    for samples in (rng.gamma(1.6, 1.5, utterances) * RATE_HZ).astype(int).clip(2000):
        whole = max(0, (samples - WINDOW) // HOP + 1)
        lengths += [WINDOW] * whole
        if samples < WINDOW or (samples - WINDOW) % HOP:
            lengths.append(min(WINDOW, int(samples)))
    return lengths


def _segment(rng: np.random.Generator, samples: int) -> SegmentJob:
    noise: Int16Array = (rng.standard_normal(samples) * 3000).astype(np.int16)
    return SegmentJob(noise, RATE_HZ, 0)


def _padding_all(name: str) -> EmotionModel:
    """A model whose second graph is left out."""
    manifest = load_emotion_manifest(resolve_model(name))
    return EmotionModel(manifest, open_session(verify_file(manifest), "cpu"), BATCHES)


def _in_batches(model: EmotionModel, segments: list[SegmentJob], batch: int) -> None:
    for start in range(0, len(segments), batch):
        model.score(segments[start : start + batch])


def _model_ways(rng: np.random.Generator) -> list[Way]:
    name = "serd-crnn"
    padding = _padding_all(name)
    whole = EmotionModel.load(resolve_model(name), "cpu")
    two = EmotionModel.load(resolve_model(name), "cpu", threads=2)
    full = [_segment(rng, WINDOW) for _ in range(16)]
    mixed = [_segment(rng, samples) for samples in _mix(rng, 24)]
    ways: list[Way] = []

    def add(told: str, model: EmotionModel, segments: list[SegmentJob], batch: int) -> None:
        model.warm_up()
        ways.append((told, partial(_in_batches, model, segments, batch), len(segments)))

    add("soxr, padded, 4 at a time", padding, full, 4)
    for batch in BATCHES:
        # Beyond the largest batch `score` splits: 16 show that nothing is lost by it.
        add(f"{name}, {batch} at a time", whole, full, batch)
    add(f"{name}, 8 at a time, two threads", two, full, 8)
    share = sum(len(segment.audio) < WINDOW for segment in mixed) / len(mixed)
    told = f"{share:.0%} of the segments short"
    add(f"soxr, padded, 8 at a time, {told}", padding, mixed, 8)
    add(f"{name}, 8 at a time, {told}", whole, mixed, 8)
    return ways


def _resampling_ways(rng: np.random.Generator) -> list[Way]:
    rows = [_segment(rng, WINDOW).audio for _ in range(8)]
    together = np.ascontiguousarray(np.stack(rows, axis=1), np.float32) / np.float32(32768.0)

    def one_by_one() -> None:
        for row in rows:
            to_model_rate(row, RATE_HZ, 2 * RATE_HZ)

    def as_channels() -> None:
        soxr.resample(together, RATE_HZ, 2 * RATE_HZ, quality=QUALITY)

    return [
        ("to 16 kHz by soxr, one by one", one_by_one, len(rows)),
        ("to 16 kHz by soxr, eight as channels", as_channels, len(rows)),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    ways = [*_model_ways(rng), *_resampling_ways(rng)]
    spent = np.zeros((rounds, len(ways), 2))
    for turn in range(-1, rounds):
        for column, (_, run, _) in enumerate(ways):
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if turn >= 0:
                spent[turn, column] = time.process_time() - cpu, time.perf_counter() - wall
    counts = np.array([count for _, _, count in ways])
    cpu_ms, wall_ms = 1e3 * np.median(spent, axis=0).T / counts
    print("ms CPU   ms wall   times as cheap   a segment")
    for (told, _, _), cpu, wall in zip(ways, cpu_ms, wall_ms, strict=True):
        print(f"{cpu:6.2f}   {wall:7.2f}   {cpu_ms[0] / cpu:14.2f}   {told}")


if __name__ == "__main__":
    main()
