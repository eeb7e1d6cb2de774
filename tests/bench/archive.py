"""How much faster an archive is in bulk: one recording, 64 one after the other, the whole folder.

    python -m tests.bench.archive [FOLDER] [--jobs N] [--recordings 64]

Without a folder, telephone calls (µ-law, 8 kHz) are made of the shipped voices, with speech for
42 % of the time. Everything is measured in one run; what counts is the ratios. Loading of models
is measured by itself, with nothing to play, and taken off; the processes of the last line also
have to start, which is not taken off.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from serd.config.loading import load
from serd.runtime import logs
from serd.runtime.replay import Summary, default_jobs, replay
from serd.sources.recordings import Recording, find_recordings
from serd.types import Int16Array
from tests.speech import demo_speech

RATE_HZ = 8000
SPEECH_SHARE = 0.42
COMPARED = 64
# The made-up voices pause by themselves for so much of their time.
VOICES_SHARE = 0.8


def make_call(speech: Int16Array, seconds: float, rng: np.random.Generator) -> Int16Array:
    """Turns and pauses of random lengths over a faint noise of the line."""
    parts: list[Int16Array] = []
    length = 0
    while length < seconds * RATE_HZ:
        talk = int(rng.gamma(4.0, 1.0) * RATE_HZ)
        pause = int(talk * (VOICES_SHARE / SPEECH_SHARE - 1) * rng.uniform(0.5, 1.5))
        start = int(rng.integers(0, max(1, len(speech) - talk)))
        parts += [speech[start : start + talk], np.zeros(pause, np.int16)]
        length += len(parts[-2]) + pause
    call = np.concatenate(parts)[: int(seconds * RATE_HZ)]
    noise = rng.standard_normal(len(call)) * 12
    noisy: Int16Array = np.clip(call + noise, -32768, 32767).astype(np.int16)
    return noisy


def make_archive(folder: Path, recordings: int) -> None:
    """Calls of 30 to 60 s."""
    rng = np.random.default_rng(1)
    speech = demo_speech(RATE_HZ)
    for number in range(recordings):
        path = folder / f"{number % 10}" / f"call-{number:05d}.wav"
        path.parent.mkdir(exist_ok=True)
        call = make_call(speech, float(rng.uniform(30, 60)), rng)
        soundfile.write(path, call, RATE_HZ, subtype="ULAW")


def measured(recordings: Sequence[Recording], jobs: int) -> Summary:
    summary = replay(recordings, load(), lambda _: None, jobs=jobs)
    if summary.interrupted:
        raise KeyboardInterrupt
    return summary


def compare(folder: Path, jobs: int) -> None:
    """Measure and print."""
    recordings = find_recordings([folder]).recordings
    middle = len(recordings) // 2
    few = recordings[max(0, middle - COMPARED // 2) :][:COMPARED]
    loading_s = min(measured([], 1).wall_s for _ in range(3))
    print(f"{len(recordings)} recordings, models load in {loading_s:.2f} s")
    print(f"{'':34}{'audio s':>10}{'× real time':>13}{'× one alone':>13}")
    first = 0.0

    def show(name: str, audio_s: float, wall_s: float) -> None:
        nonlocal first
        speed = audio_s / max(wall_s, 1e-3)
        first = first or speed
        print(f"{name:34}{audio_s:>10.0f}{speed:>13.0f}{speed / first:>13.2f}", flush=True)

    alone = measured(few[:1], 1)
    show("one alone", alone.audio_s, alone.wall_s - loading_s)
    each = [measured([recording], 1) for recording in few]
    net_s = sum(summary.wall_s - loading_s for summary in each)
    show(f"{len(few)} one after the other", sum(summary.audio_s for summary in each), net_s)
    bulk = measured(recordings, 1)
    show("all in bulk, one process", bulk.audio_s, bulk.wall_s - loading_s)
    if jobs > 1:
        several = measured(recordings, jobs)
        show(f"all in bulk, {jobs} processes", several.audio_s, several.wall_s)


def main() -> None:
    """Parse arguments and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path, help="an archive; made up otherwise")
    parser.add_argument("--recordings", type=int, default=COMPARED, help="of a made-up archive")
    parser.add_argument("--jobs", type=int, help="processes of the last line")
    arguments = parser.parse_args()
    logs.configure("error")
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder or Path(made)
        if arguments.folder is None:
            make_archive(folder, arguments.recordings)
        compare(folder, arguments.jobs or max(2, default_jobs(1 << 20, cores)))


if __name__ == "__main__":
    main()
