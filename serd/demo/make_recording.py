"""Make ``two-voices.flac``: a short conversation spoken by espeak-ng. Run by `make demo-recording`.

Needs the program espeak-ng. The result depends on its version, so the recording is kept in the
repository and made anew only on purpose.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from serd.audio.resample import StreamResampler
from serd.types import Int16Array

SAMPLE_RATE_HZ = 8000
RECORDING = Path(__file__).with_name("two-voices.flac")


class Line(NamedTuple):
    """A sentence, how it is spoken, and the silence after it."""

    voice: str
    pitch: int
    words_a_minute: int
    loudness: int
    pause_s: float
    text: str


SCRIPT = (
    Line("en-us+f3", 50, 155, 60, 1.1, "Good morning, lost property office. How may I help you?"),
    Line(
        "en-gb+m3",
        62,
        195,
        95,
        1.0,
        "I have called you four times this week, and four times I was told to wait! My umbrella is"
        " on your shelf, I can see it from the street, and nobody will hand it to me!",
    ),
    Line(
        "en-us+f3",
        42,
        140,
        60,
        1.2,
        "I am so sorry. Let me look. Yes, here it is, the green one with the wooden handle.",
    ),
    Line("en-gb+m3", 80, 180, 85, 1.3, "Oh, how wonderful! You have saved my day, thank you!"),
)


def speak(line: Line) -> Int16Array:
    """The sentence as int16 ``[n]`` at `SAMPLE_RATE_HZ`."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        options = ["-v", line.voice, "-p", str(line.pitch), "-s", str(line.words_a_minute)]
        options += ["-a", str(line.loudness), "-w", file.name]
        subprocess.run(["espeak-ng", *options, line.text], check=True)
        samples, rate = soundfile.read(file.name, dtype="int16")
    resampler = StreamResampler(rate, SAMPLE_RATE_HZ)
    return np.concatenate([resampler.push(samples), resampler.finish()])


def main() -> None:
    """Write the recording."""
    parts = [np.zeros(SAMPLE_RATE_HZ, np.int16)]
    for line in SCRIPT:
        parts += [speak(line), np.zeros(round(line.pause_s * SAMPLE_RATE_HZ), np.int16)]
    samples = np.concatenate(parts)
    # A faint noise floor, since a line is never digitally silent.
    noise = np.random.default_rng(1).normal(0.0, 8.0, len(samples))
    noisy = np.clip(np.rint(samples + noise), -32768, 32767).astype(np.int16)
    soundfile.write(RECORDING, noisy, SAMPLE_RATE_HZ, subtype="PCM_16")


if __name__ == "__main__":
    main()
