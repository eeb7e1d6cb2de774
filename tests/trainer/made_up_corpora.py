"""Corpora made of tones in the official naming, small enough to train on in a test."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import soundfile as sf

SECONDS = 0.4
_RATE_HZ = 16_000


def _names() -> dict[str, list[str]]:
    return {
        "ravdess": [
            f"03-01-0{emotion}-01-0{statement}-0{repetition}-0{actor}"
            for emotion, statement, repetition, actor in product(
                range(1, 9), (1, 2), (1, 2), (1, 2, 3)
            )
        ],
        "tess": [
            f"{speaker}_{word}_{emotion}"
            for speaker, word, emotion in product(
                ("OAF", "YAF"),
                ("back", "bar", "base"),
                ("angry", "disgust", "fear", "happy", "neutral", "ps", "sad"),
            )
        ],
        "savee": [
            f"{speaker}_{emotion}0{number}"
            for speaker, emotion, number in product(
                ("DC", "JE", "JK"), ("a", "d", "f", "h", "n", "sa", "su"), (1, 2)
            )
        ],
    }


def plant_corpora(root: Path) -> None:
    """Write RAVDESS, TESS and SAVEE below `root/corpora`: three speakers or two, every emotion."""
    rng = np.random.default_rng(11)
    time = np.arange(int(SECONDS * _RATE_HZ)) / _RATE_HZ
    for name, stems in _names().items():
        folder = root / "corpora" / name
        folder.mkdir(parents=True)
        for stem in stems:
            tone = np.sin(2 * np.pi * rng.uniform(100, 900) * time)
            noise = rng.standard_normal(len(time))
            sf.write(folder / f"{stem}.wav", 0.3 * tone + 0.02 * noise, _RATE_HZ)
