"""How well probabilities tell speech: area under the ROC curve, a condition at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from trainer.errors import TrainerError
from trainer.pcm import Float32, Int16
from trainer.vad.bank import load_validation
from trainer.vad.meetings import CONDITIONS, Meeting, through
from trainer.vad.mixture import Sounds

Listener = Callable[[Int16, int], Float32]
"""int16 [recordings, samples] and their rate to probabilities, float32 [recordings, frames]."""


@dataclass(frozen=True, slots=True)
class Score:
    """Figures of a detector in a condition; `found` and `false` are the shares of speech and of
    other frames with a probability of at least a half.
    """

    condition: str
    detector: str
    auc: float
    found: float
    false: float


def score(detector: str, condition: str, label: Float32, probability: Float32) -> Score:
    """Compare probabilities with labels, both float32 of one shape; frames that are half speech
    or more count as speech.

    Raises
    ------
    TrainerError
        the condition has only speech, or none.
    """
    truth, value = label.ravel() >= 0.5, probability.ravel()
    if truth.all() or not truth.any():
        raise TrainerError(f"{condition}: has only one of speech and silence to compare with.")
    loud = value >= 0.5
    return Score(
        condition,
        detector,
        float(roc_auc_score(truth, value)),
        float(loud[truth].mean()),
        float(loud[~truth].mean()),
    )


def score_validation(detector: str, listen: Listener, folder: Path) -> list[Score]:
    """Every condition of a bank's validation part."""
    return [
        score(detector, name, label, listen(samples, rate_hz))
        for name, rate_hz, samples, label in load_validation(folder)
    ]


def mean_auc(scores: list[Score]) -> float:
    """Mean over conditions: what epochs and recipes are chosen by."""
    return float(np.mean([item.auc for item in scores]))


def score_meetings(
    detector: str, listen: Listener, meetings: Sequence[Meeting], sounds: Sounds
) -> list[Score]:
    """Every condition of the test set over all its frames, and as it is by recording."""
    scores = []
    for condition in CONDITIONS:
        labels, heard = [], []
        for meeting, rate_hz, samples in through(meetings, condition, sounds):
            probability = listen(samples[None], rate_hz)[0]
            label = meeting.label[: len(probability)]
            labels.append(label)
            heard.append(probability[: len(label)])
            if condition == "16k" and label.any() and not label.all():
                one = f"meeting {meeting.name} {condition}"
                scores.append(score(detector, one, label, heard[-1]))
        together = np.concatenate(labels), np.concatenate(heard)
        scores.append(score(detector, f"meetings {condition}", *together))
    return scores
