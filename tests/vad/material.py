"""Recordings for the detectors, and what is spoken in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr

from serd.types import BoolArray, Float32Array, Int16Array, Int64Array
from serd.vad.detector import Detector

FRAME_S = 0.032


def load(path: Path, rate_hz: int) -> Int16Array:
    """The first channel of a recording, int16 at `rate_hz`."""
    samples, from_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(samples[:, 0], from_hz, rate_hz)
    whole: Int16Array = np.clip(np.round(mono * 32768), -32768, 32767).astype(np.int16)
    return whole


def through_mulaw(samples: Int16Array) -> Int16Array:
    """What a telephone line with G.711 makes of `samples`."""
    from serd.audio.g711 import decode_mulaw, encode_mulaw

    return decode_mulaw(encode_mulaw(samples))


def babble(rate_hz: int, recordings: int, seconds: float = 3.0) -> Int16Array:
    """int16[recordings, samples]: tone bursts and noise that keep the network busy."""
    rng = np.random.default_rng(7)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    pitch = rng.uniform(90, 250, (recordings, 1))
    wobble = 1 + 0.1 * np.sin(2 * np.pi * rng.uniform(2, 6, (recordings, 1)) * time)
    phase = 2 * np.pi * np.cumsum(pitch * wobble, axis=1) / rate_hz
    voice = np.sum([np.sin(k * phase) / k for k in range(1, 12)], axis=0)
    gate = np.sin(2 * np.pi * rng.uniform(0.5, 3, (recordings, 1)) * time) > 0
    level = rng.uniform(100, 5000, (recordings, 1))
    return np.asarray(voice * gate * level + rng.normal(0, 30, voice.shape), np.int16)


def listen(detector: Detector, recordings: list[Int16Array]) -> list[Float32Array]:
    """Probabilities of several recordings of any length, each a row, from a fresh state."""
    frame = detector.frame_samples
    counts = np.array([len(samples) // frame for samples in recordings])
    detector.reset(np.arange(len(recordings)))
    out = [np.zeros(count, np.float32) for count in counts]
    for k in range(int(counts.max())):
        rows: Int64Array = np.flatnonzero(counts > k)
        frames = np.stack([recordings[row][k * frame : (k + 1) * frame] for row in rows])
        for row, value in zip(rows, detector.step(rows, frames), strict=True):
            out[row][k] = value
    return out


def listen_in_any_company(
    detector: Detector, recordings: Int16Array, frame: int, rng: np.random.Generator
) -> Float32Array:
    """Each recording in a row of its own, at its own pace, beside others drawn at random."""
    rows = len(recordings)
    place = rng.permutation(rows + 7)[:rows]
    done = np.zeros(rows, np.int64)
    count = recordings.shape[1] // frame
    heard = np.zeros((rows, count), np.float32)
    while (done < count).any():
        ready = rng.permutation(np.flatnonzero(done < count))
        chosen = ready[: rng.integers(1, len(ready) + 1)]
        pieces = [recordings[k, done[k] * frame : (done[k] + 1) * frame] for k in chosen]
        heard[chosen, done[chosen]] = detector.step(place[chosen], np.stack(pieces))
        done[chosen] += 1
    return heard


def turns(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Start and end, in seconds, of the turns of every recording that an RTTM file speaks of."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in path.read_text().splitlines():
        _, name, _, start, duration, *_ = line.split()
        found.setdefault(name, []).append((float(start), float(start) + float(duration)))
    return found


def spoken(spans: list[tuple[float, float]], frames: int) -> BoolArray:
    """Which frames have their middle inside a turn."""
    middle = (np.arange(frames) + 0.5) * FRAME_S
    inside: BoolArray = np.zeros(frames, np.bool_)
    for start, end in spans:
        inside |= (middle >= start) & (middle < end)
    return inside


def auc(truth: BoolArray, score: Float32Array) -> float:
    """Area under the ROC curve: how often a true frame scores above a false one."""
    order = np.sort(score[~truth])
    below = np.searchsorted(order, score[truth], "left")
    upto = np.searchsorted(order, score[truth], "right")
    return float((below + upto).mean() / 2 / len(order))


def conversations(shared: Path, rate_hz: int) -> tuple[list[Int16Array], list[BoolArray]]:
    """The meeting excerpts and which of their frames are spoken."""
    told = turns(shared / "conversations" / "turns.rttm")
    paths = sorted((shared / "conversations").glob("*.flac"))
    recordings = [load(path, rate_hz) for path in paths]
    frame = round(FRAME_S * rate_hz)
    truth = [
        spoken(told[path.stem], len(samples) // frame)
        for path, samples in zip(paths, recordings, strict=True)
    ]
    return recordings, truth


def long_stream(
    shared: Path, rate_hz: int, minutes: float, seed: int = 1
) -> tuple[Int16Array, list[tuple[int, int]]]:
    """Recordings of six corpora at various levels with pauses of 0.4 to 8 s over faint noise, and
    the ``[start, end)`` of each, in samples.
    """
    rng = np.random.default_rng(seed)
    paths: list[Path] = []
    for corpus in sorted((shared / "corpora").iterdir()):
        if corpus.is_dir():
            found = sorted(p for p in corpus.rglob("*") if p.suffix in {".flac", ".opus"})
            paths += [found[k] for k in rng.choice(len(found), 40, replace=False)]
    order = rng.permutation(len(paths))
    clips = [load(paths[k], rate_hz) for k in order]
    total = round(minutes * 60 * rate_hz)
    stream = rng.normal(0, 5, total)
    spans: list[tuple[int, int]] = []
    place = 0
    while True:
        clip = clips[len(spans) % len(clips)]
        pause_s = rng.choice([0.4, 0.8, 1.5, 3.0, 8.0], p=[0.4, 0.25, 0.2, 0.1, 0.05])
        place += round(float(pause_s) * rate_hz)
        if place + len(clip) > total:
            return np.clip(np.round(stream), -32768, 32767).astype(np.int16), spans
        stream[place : place + len(clip)] += clip * 10 ** (rng.uniform(-20, 0) / 20)
        spans.append((place, place + len(clip)))
        place += len(clip)
