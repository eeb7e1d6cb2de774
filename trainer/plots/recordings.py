"""Labelled recordings as figures need them, and even samples of many."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.audio import Int16, decode, speech_bounds
from trainer.corpora.base import Utterance
from trainer.errors import TrainerError
from trainer.predictions import Predictions


@dataclass(frozen=True, slots=True, order=True)
class Recording:
    """A file and what is said of it; "" where nothing is."""

    path: Path
    corpus: str
    speaker: str
    label: str
    sex: str = ""
    language: str = ""
    intensity: str = ""

    @property
    def speaker_id(self) -> str:
        """`corpus/speaker`."""
        return f"{self.corpus}/{self.speaker}"


def of_utterances(utterances: Iterable[Utterance]) -> list[Recording]:
    """Recordings of a corpus, by path."""
    return sorted(
        Recording(u.path, u.corpus, u.speaker, u.label, u.sex or "", u.language, u.intensity or "")
        for u in utterances
    )


def of_predictions(predictions: Iterable[Predictions]) -> list[Recording]:
    """Recordings that a model heard, each once, by path."""
    found = {
        Recording(
            Path(str(p.path[i])),
            str(p.corpus[i]),
            str(p.speaker[i]),
            p.labels[int(p.truth[i])],
            str(p.sex[i]),
            str(p.language[i]),
            str(p.intensity[i]),
        )
        for p in predictions
        for i in range(len(p))
    }
    return sorted(found)


def read_speech(path: Path) -> Int16:
    """A recording cut to its speech, at 16 kHz: int16 [samples].

    Raises
    ------
    TrainerError
        the file cannot be read or is empty.
    """
    samples = decode(path)
    start, end = speech_bounds(samples)
    if end <= start:
        raise TrainerError(f"{path} is empty.")
    return samples[start:end]


def sample_evenly(recordings: Sequence[Recording], most: int, seed: int = 0) -> list[Recording]:
    """At most so many of each label, speakers in turn, the same ones every time."""
    chosen: list[Recording] = []
    for label in sorted({r.label for r in recordings}):
        queues: dict[str, list[Recording]] = defaultdict(list)
        for recording in recordings:
            if recording.label == label:
                queues[recording.speaker_id].append(recording)
        rng = random.Random(seed)
        for queue in queues.values():
            rng.shuffle(queue)
        left = most
        while left and queues:
            for speaker in list(queues):
                if left:
                    chosen.append(queues[speaker].pop())
                    left -= 1
                if not queues[speaker]:
                    del queues[speaker]
    return sorted(chosen)


def choose_examples(recordings: Sequence[Recording], labels: Sequence[str]) -> list[Recording]:
    """One recording a label, of one speaker as far as there is one with all labels.

    Strong intensity goes first where a corpus has it.
    """
    spread = Counter[str]()
    for speaker, _ in {(r.speaker_id, r.label) for r in recordings}:
        spread[speaker] += 1
    order = {speaker: (-count, speaker) for speaker, count in spread.items()}
    chosen = []
    for label in labels:
        found = [r for r in recordings if r.label == label]
        if found:
            chosen.append(
                min(found, key=lambda r: (order[r.speaker_id], r.intensity != "strong", r.path))
            )
    return chosen
