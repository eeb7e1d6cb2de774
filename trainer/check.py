"""What is wrong with a corpus's files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from trainer.audio import SAMPLE_RATE_HZ, Int16, decode
from trainer.corpora.base import Corpus
from trainer.errors import TrainerError

# RMS in int16 units: about -72 dBFS, under any recording of speech.
_SILENCE_RMS = 8.0
_CLIPPED_SHARE = 0.01
_SHORTEST_SAMPLES = SAMPLE_RATE_HZ // 4


@dataclass(slots=True)
class Findings:
    """A corpus's totals, its faulty files and those the loader left out, with reasons."""

    utterances: int = 0
    speakers: int = 0
    seconds: float = 0.0
    faults: list[tuple[Path, str]] = field(default_factory=list)
    ignored: list[tuple[Path, str]] = field(default_factory=list)


def fault_of(samples: Int16) -> str | None:
    """What is wrong with a recording, or None: int16 [samples] at 16 kHz."""
    if len(samples) < _SHORTEST_SAMPLES:
        return f"only {len(samples) / SAMPLE_RATE_HZ:.2f} s long"
    values = samples.astype(np.float64)
    if np.sqrt(np.mean(values**2)) < _SILENCE_RMS:
        return "silent"
    clipped = np.mean(np.abs(values) >= 32_600)
    if clipped > _CLIPPED_SHARE:
        return f"clipped ({clipped:.1%} of its samples at full scale)"
    return None


def check_folder(corpus: Corpus, folder: Path) -> Findings:
    """Decode every file that the loader takes, going on after each fault.

    Raises
    ------
    TrainerError
        the folder holds no file in the corpus's naming.
    """
    scan = corpus.scan(folder)
    if not scan.utterances:
        raise TrainerError(f"{folder} holds no audio file named as {corpus.title} names them.")
    found = Findings(
        utterances=len(scan.utterances),
        speakers=len({u.speaker for u in scan.utterances}),
        ignored=[(i.path, i.reason) for i in scan.ignored],
    )
    first_with: dict[bytes, Path] = {}
    for utterance in tqdm(scan.utterances, "checking", disable=None):
        try:
            samples = decode(utterance.path)
        except TrainerError as error:
            found.faults.append((utterance.path, str(error).partition("cannot be read")[2]))
            found.faults[-1] = (utterance.path, "cannot be read" + found.faults[-1][1])
            continue
        found.seconds += len(samples) / SAMPLE_RATE_HZ
        fault = fault_of(samples)
        if fault is not None:
            found.faults.append((utterance.path, fault))
        digest = hashlib.sha256(samples.tobytes()).digest()
        other = first_with.setdefault(digest, utterance.path)
        if other != utterance.path:
            found.faults.append((utterance.path, f"the same recording as {other}"))
    return found
