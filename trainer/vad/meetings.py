"""The test set: far-field meetings with speaker turns, as they are and through telephones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from serd.audio.g711 import decode_mulaw, encode_mulaw
from serd.types import FRAME_MS, frame_samples
from trainer.corpora.base import audio_files
from trainer.errors import TrainerError
from trainer.pcm import Float32, Int16, decode, to_float, to_int16
from trainer.vad.line import lose_packets
from trainer.vad.mixture import Sounds
from trainer.vad.sounds import unit_rms

_SEED = 20
_FRAME_S = FRAME_MS / 1000

CONDITIONS = (
    "16k",
    "8k",
    "mulaw-8k",
    "mulaw-8k, noise 15 dB",
    "mulaw-8k, noise 5 dB",
    "mulaw-8k, loss 5 %",
    "mulaw-8k, loss 15 %",
)


@dataclass(frozen=True, slots=True)
class Meeting:
    """A recording at 16 kHz and, per frame of 32 ms, whether its middle is in somebody's turn:
    float32 [frames], 0 or 1.
    """

    name: str
    samples: Int16
    label: Float32


def load_meetings(folder: Path) -> list[Meeting]:
    """Recordings of `folder` with the turns of its RTTM files.

    Raises
    ------
    TrainerError
        the folder is missing, has no turns, a line of them is wrong, or a recording has none.
    """
    turns: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(folder.glob("*.rttm")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            try:
                kind, name, _, start, duration, *_ = line.split()
                span = float(start), float(start) + float(duration)
            except ValueError:
                raise TrainerError(f"{path}: line {number} is no RTTM: {line!r}") from None
            if kind == "SPEAKER":
                turns.setdefault(name, []).append(span)
    if not turns:
        raise TrainerError(f"{folder} holds no turns (*.rttm) to test on.")
    meetings = []
    for path in audio_files(folder):
        if path.stem not in turns:
            raise TrainerError(f"{path}: no RTTM file of the folder speaks of it.")
        samples = decode(path)
        middle = (np.arange(len(samples) // frame_samples(16_000)) + 0.5) * _FRAME_S
        label = np.zeros(len(middle), np.float32)
        for begun, ended in turns[path.stem]:
            label[(middle >= begun) & (middle < ended)] = 1
        meetings.append(Meeting(path.stem, samples, label))
    return meetings


def through(
    meetings: Sequence[Meeting], condition: str, sounds: Sounds
) -> Iterator[tuple[Meeting, int, Int16]]:
    """Each meeting with its rate and samples in a condition; `sounds` trained nothing.

    Noise is a recorded one and white noise at equal power, mixed in before G.711 at a ratio of
    mean powers. The same call gives the same samples.
    """
    for place, meeting in enumerate(meetings):
        rng = np.random.default_rng([_SEED, place])
        if condition == "16k":
            yield meeting, 16_000, meeting.samples
            continue
        audio = to_float(meeting.samples)
        if "noise" in condition:
            snr_db = float(condition.split()[-2])
            recorded = sounds.noises[int(rng.integers(len(sounds.noises)))]
            noise = np.resize(recorded, len(audio)) + rng.standard_normal(len(audio))
            level = np.sqrt(np.mean(np.square(audio))) * 10 ** (-snr_db / 20)
            audio = audio + np.float32(level) * unit_rms(noise.astype(np.float32))
        pcm = to_int16(soxr.resample(audio, 16_000, 8000))
        if "mulaw" in condition:
            pcm = decode_mulaw(encode_mulaw(pcm))
        if "loss" in condition:
            share = float(condition.split()[-2]) / 100
            pcm = lose_packets(pcm, 8000, share, rng, repeat=False)
        yield meeting, 8000, pcm
