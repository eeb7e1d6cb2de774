"""Clean speech with what of it is speech, on a grid of 8 ms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer import corpora
from trainer.audio import Clips, load_clips
from trainer.cache import save_atomically
from trainer.errors import TrainerError
from trainer.pcm import Float32, Int16, to_float
from trainer.vad.settings import SpeechSettings
from trainer.vad.teacher import Teacher

GRID_SAMPLES = 128
"""8 ms at 16 kHz; four of it are a frame."""

_FRAME_POINTS = 4
_LEAD_SAMPLES = 20 * 512  # faint noise in front, in which the teacher settles
_BELOW_PEAK_DB = 32.0
_SHORTEST_POINTS = 4
_NEAR_POINTS = 20
_DOUBTED_BELOW = 0.2

Grid = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Voices:
    """Clips, and per clip on the grid: activity (0 or 1) and the teacher's probability.

    `grid` is float32 [2, all points], `points` int64 [clips + 1].
    """

    clips: Clips
    grid: Grid
    points: npt.NDArray[np.int64]
    by_speaker: dict[str, npt.NDArray[np.int64]]

    def clip(self, index: int) -> tuple[Int16, Grid]:
        """Samples from the first active point to the last, and their float32 [2, points]."""
        grid = self.grid[:, self.points[index] : self.points[index + 1]]
        active = np.flatnonzero(grid[0])
        if not len(active):
            return np.empty(0, np.int16), grid[:, :0]
        first, last = max(int(active[0]) - 2, 0), min(int(active[-1]) + 3, grid.shape[1])
        samples = self.clips.clip(index)[first * GRID_SAMPLES : last * GRID_SAMPLES]
        return samples, grid[:, first : first + len(samples) // GRID_SAMPLES]


def activity(samples: Int16, teacher: Float32) -> Grid:
    """Which points of a clean recording are speech: float32 [points], 0 or 1.

    Energy decides to the point: within 32 dB of the loud ones. Where the teacher hears nothing
    for 160 ms around, it is a breath or a click after all.
    """
    points = len(samples) // GRID_SAMPLES
    power = np.square(to_float(samples[: points * GRID_SAMPLES]), dtype=np.float64)
    power = power.reshape(points, GRID_SAMPLES).mean(axis=1)
    smooth = np.convolve(power, np.full(3, 1 / 3), "same")
    level = 10 * np.log10(smooth + 1e-10)
    if points == 0 or level.max() < -80:
        return np.zeros(points, np.float32)
    loud = np.percentile(level[level > level.max() - 40], 95)
    active = level > loud - _BELOW_PEAK_DB
    near = np.array(
        [teacher[max(0, p - _NEAR_POINTS) : p + _NEAR_POINTS].max() for p in range(points)]
    )
    active &= near >= _DOUBTED_BELOW
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start < _SHORTEST_POINTS:
            active[start:end] = False
    return np.asarray(active, np.float32)


def load_voices(
    settings: SpeechSettings, data: Path, cache: Path, progress: bool = False
) -> tuple[Voices, Voices]:
    """The training and the validation voices, decoded and labelled once and kept in `cache`.

    Raises
    ------
    TrainerError
        a corpus is missing, a speaker named for validation is not in it, or nobody is left.
    """
    utterances = [
        utterance
        for name in settings.corpora
        for utterance in corpora.load(name, data / "corpora").utterances
    ]
    clips = load_clips(utterances, cache, progress)
    grid, points = _labelled(clips, cache)
    speakers: dict[str, list[int]] = {}
    for index, utterance in enumerate(clips.utterances):
        speakers.setdefault(utterance.speaker_id, []).append(index)
    unknown = sorted(set(settings.validation) - set(speakers))
    if unknown:
        raise TrainerError(
            f"speech.validation: no such speaker: {', '.join(unknown)} "
            f"(there are {', '.join(sorted(speakers))})."
        )
    held = {name: np.array(k) for name, k in speakers.items() if name in settings.validation}
    rest = {name: np.array(k) for name, k in speakers.items() if name not in settings.validation}
    if not rest:
        raise TrainerError("speech.validation: no speaker is left to train on.")
    return Voices(clips, grid, points, rest), Voices(clips, grid, points, held)


def _labelled(clips: Clips, cache: Path) -> tuple[Grid, npt.NDArray[np.int64]]:
    stored = cache / f"activity-{len(clips)}-{len(clips.samples)}.npz"
    counts = [len(clips.clip(k)) // GRID_SAMPLES for k in range(len(clips))]
    points = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    if stored.is_file():
        with np.load(stored) as arrays:
            return np.asarray(arrays["grid"], np.float32), points
    grid = np.zeros((2, int(points[-1])), np.float32)
    for k, probability in enumerate(_taught([clips.clip(k) for k in range(len(clips))])):
        start, end = points[k], points[k + 1]
        grid[1, start:end] = probability[: end - start]
        grid[0, start:end] = activity(clips.clip(k), probability)
    save_atomically(stored, grid=grid.astype(np.float16))
    return grid, points


def _taught(recordings: Sequence[Int16]) -> list[Float32]:
    rng = np.random.default_rng(0)
    lead = np.rint(rng.normal(0, 4, _LEAD_SAMPLES)).astype(np.int16)
    tail = np.rint(rng.normal(0, 4, 512)).astype(np.int16)
    padded = [np.concatenate([lead, samples, tail]) for samples in recordings]
    heard = Teacher(256).listen(padded, 16_000)
    skipped = _LEAD_SAMPLES // 512
    return [np.repeat(probability[skipped:], _FRAME_POINTS) for probability in heard]
