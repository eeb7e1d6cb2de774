"""What a step of the speech stage costs, side by side.

    python -m tests.bench.detector

Silero's network as it is published (one ``run`` of its ONNX file for the whole batch) against the
detector, by size of the batch; the detector with and without its gate on lines that are digitally
silent for a part of the time; and the segmenter. Times are processor time of the thread, the least
of several rounds in which the variants take turns; what to look at is their ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from serd.inference.manifest import load_vad_manifest, resolve_model, verify_file
from serd.inference.providers import Device, open_session
from serd.segmenter import Segmenter, SegmenterOptions
from serd.types import Float32Array, Int16Array, Int64Array, frame_samples
from serd.vad.silero import SileroDetector
from tests.speech import demo_speech

Step = Callable[[Int64Array, Int16Array], Float32Array]
ROWS = (1, 8, 32, 100, 512, 1000, 1500)
SILENT = (0.0, 0.3, 0.58, 1.0)
ROUNDS = 5
_ROUND_FRAMES = 3000
_WARM_STEPS = 40  # beyond the frames of digital silence that are heard before any is spared


def published(rate_hz: int, rows: int) -> Step:
    """The step with the published network: gather, one call, scatter."""
    manifest = load_vad_manifest(resolve_model("silero-vad"))
    session: Any = open_session(verify_file(manifest), Device.CPU).session
    size = frame_samples(rate_hz)
    context = np.zeros((rows, size // 8), np.float32)
    state = np.zeros((2, rows, 128), np.float32)
    rate = np.array(rate_hz, np.int64)

    def step(at: Int64Array, frames: Int16Array) -> Float32Array:
        audio = np.concatenate([context[at], frames * np.float32(1 / 32768)], axis=1)
        feeds = {"input": audio, "state": state.take(at, axis=1), "sr": rate}
        output, state[:, at] = session.run(None, feeds)
        context[at] = audio[:, -size // 8 :]
        probability: Float32Array = output[:, 0]
        return probability

    return step


def calls(rate_hz: int, rows: int, silent: float) -> Iterator[Int16Array]:
    """Frames of `rows` calls, each somewhere else in the demo recording and switched off for a
    share of the time, 3 s at a stretch on average.
    """
    rng = np.random.default_rng(1)
    size = frame_samples(rate_hz)
    speech = demo_speech(rate_hz)
    frames = speech[: len(speech) // size * size].reshape(-1, size)
    place = rng.integers(0, len(frames), rows)
    off = rng.random(rows) < silent
    change = 0.01
    while True:
        shown = frames[place % len(frames)]
        shown[off] = 0
        yield shown
        place += 1
        turn = rng.random(rows)
        off = np.where(off, turn >= change * (1 - silent), turn < change * silent)


def microseconds(step: Step, frames: Iterator[Int16Array], rows: int) -> float:
    """Of one row's frame in steps of `rows`."""
    at = np.arange(rows)
    steps = [next(frames) for _ in range(max(3, _ROUND_FRAMES // rows))]
    began = time.thread_time_ns()
    for frame in steps:
        step(at, frame)
    return (time.thread_time_ns() - began) / 1000 / len(steps) / rows


def least(variants: dict[str, Step], rate_hz: int, rows: int, silent: float) -> dict[str, float]:
    """Of `ROUNDS`, after some steps that do not count."""
    sources = {name: calls(rate_hz, rows, silent) for name in variants}
    for name, step in variants.items():
        for _ in range(_WARM_STEPS):
            step(np.arange(rows), next(sources[name]))
    best = dict.fromkeys(variants, np.inf)
    for _ in range(ROUNDS):
        for name, step in variants.items():
            best[name] = min(best[name], microseconds(step, sources[name], rows))
    return best


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, choices=(8000, 16000), default=8000)
    rate_hz = parser.parse_args().rate
    most = max(ROWS)

    print(f"microseconds a frame of 32 ms at {rate_hz} Hz\n")
    print(
        f"{'rows':>6}{'published':>11}{'detector':>10}{'ratio':>7}{'network':>9}{'segmenter':>11}"
    )
    options = SegmenterOptions(rate_hz, frame_samples(rate_hz))
    for rows in ROWS:
        detector = SileroDetector.load(rate_hz, rows)
        segmenter = Segmenter(rows, options)
        segmenter.start(np.arange(rows), np.zeros(rows, np.int64))
        heard = np.zeros(rows, np.float32)

        def cut(
            at: Int64Array,
            _: Int16Array,
            segmenter: Segmenter = segmenter,
            heard: Float32Array = heard,
        ) -> Float32Array:
            segmenter.step(at, heard)
            return heard

        variants: dict[str, Step] = {
            "published": published(rate_hz, rows),
            "detector": detector.step,
            "segmenter": cut,
        }
        best = least(variants, rate_hz, rows, 0.0)
        frames = (_WARM_STEPS + ROUNDS * max(3, _ROUND_FRAMES // rows)) * rows
        network = detector.compute_ns / 1000 / frames
        ratio = best["published"] / best["detector"]
        print(
            f"{rows:6}{best['published']:11.2f}{best['detector']:10.2f}{ratio:6.1f}x"
            f"{network:9.2f}{best['segmenter']:11.3f}"
        )

    print(f"\n{most} rows, digitally silent for a part of the time\n")
    print(f"{'silent':>7}{'ungated':>9}{'gated':>7}{'ratio':>7}{'spared':>8}")
    for silent in SILENT:
        gated = SileroDetector.load(rate_hz, most)
        plain = SileroDetector.load(rate_hz, most, gate=False)
        best = least({"ungated": plain.step, "gated": gated.step}, rate_hz, most, silent)
        frames = (_WARM_STEPS + ROUNDS * max(3, _ROUND_FRAMES // most)) * most
        print(
            f"{silent:7.0%}{best['ungated']:9.2f}{best['gated']:7.2f}"
            f"{best['ungated'] / best['gated']:6.1f}x{gated.gated / frames:8.0%}"
        )


if __name__ == "__main__":
    main()
