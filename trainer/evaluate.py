"""Figures of a model on recordings: what the daemon would say, clean and over the telephone.

An utterance is cut to its speech with 0.2 s of padding, then into the daemon's segments; its
scores are the mean of the segments' scores, weighted by duration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from trainer.audio import WINDOW_SAMPLES, Clips, Float32, to_float, windows
from trainer.augment import telephone
from trainer.corpora.base import LABELS
from trainer.metrics import Float64, Int64, accuracy, confusion_matrix, uar, uar_interval

Condition = Literal["clean", "telephone-mulaw-8k"]
CONDITIONS: tuple[Condition, ...] = ("clean", "telephone-mulaw-8k")

# (audio float32 [batch, 48000], length int64 [batch]) to logits float32 [batch, labels]
Predictor = Callable[[Float32, Int64], Float32]


@dataclass(frozen=True, slots=True)
class Segments:
    """Segments of some utterances under one condition.

    Attributes
    ----------
    audio
        float32 [segments, 48000].
    length
        int64 [segments].
    owner
        int64 [segments], row of the utterance in `truth` and `corpus`.
    truth
        int64 [utterances], label.
    corpus
        [utterances].
    """

    audio: Float32
    length: Int64
    owner: Int64
    truth: Int64
    corpus: npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Result:
    """Metrics of one corpus under one condition, on whole utterances."""

    corpus: str
    condition: Condition
    uar: float
    accuracy: float
    count: int
    interval: tuple[float, float]
    confusion: Int64


def torch_predictor(model: torch.nn.Module) -> Predictor:
    """A model in evaluation mode as a predictor."""

    def predict(audio: Float32, length: Int64) -> Float32:
        with torch.inference_mode():
            logits = model(torch.from_numpy(audio), torch.from_numpy(length))
        return np.asarray(logits.float().numpy(), np.float32)

    return predict


def cut_segments(clips: Clips, indices: Sequence[int], condition: Condition) -> Segments:
    """Segments of the utterances at `indices`, as the daemon cuts them."""
    audio, length, owner = [], [], []
    for row, index in enumerate(indices):
        samples = to_float(clips.speech(index))
        if condition == "telephone-mulaw-8k":
            samples = telephone(samples, law="mulaw")
        for start, end in windows(len(samples)):
            audio.append(np.pad(samples[start:end], (0, WINDOW_SAMPLES - (end - start))))
            length.append(end - start)
            owner.append(row)
    chosen = [clips.utterances[index] for index in indices]
    return Segments(
        audio=np.stack(audio).astype(np.float32),
        length=np.asarray(length, np.int64),
        owner=np.asarray(owner, np.int64),
        truth=np.asarray([LABELS.index(u.label) for u in chosen], np.int64),
        corpus=np.asarray([u.corpus for u in chosen]),
    )


def softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Float64:
    """Softmax over the last axis of logits / temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponent = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(exponent / exponent.sum(axis=-1, keepdims=True), np.float64)


def segment_logits(predict: Predictor, segments: Segments, batch: int = 64) -> Float32:
    """Logits of every segment: float32 [segments, labels]."""
    return np.concatenate(
        [
            predict(segments.audio[i : i + batch], segments.length[i : i + batch])
            for i in range(0, len(segments.length), batch)
        ]
    )


def utterance_scores(logits: Float32, segments: Segments, temperature: float = 1.0) -> Float64:
    """Duration-weighted mean of segment scores: float64 [utterances, labels]."""
    weight = segments.length.astype(np.float64)
    total = np.zeros((len(segments.truth), logits.shape[1]))
    np.add.at(total, segments.owner, softmax(logits, temperature) * weight[:, None])
    return total / np.bincount(segments.owner, weights=weight)[:, None]


def results(scores: Float64, segments: Segments, condition: Condition) -> list[Result]:
    """Metrics of each corpus, in alphabetical order."""
    predicted = scores.argmax(axis=1)
    found = []
    for corpus in sorted(set(segments.corpus.tolist())):
        rows = segments.corpus == corpus
        truth, guess = segments.truth[rows], predicted[rows]
        confusion = confusion_matrix(truth, guess, scores.shape[1])
        found.append(
            Result(
                corpus=corpus,
                condition=condition,
                uar=uar(confusion),
                accuracy=accuracy(confusion),
                count=int(rows.sum()),
                interval=uar_interval(truth, guess, scores.shape[1]),
                confusion=confusion,
            )
        )
    return found


def corpus_mean_uar(scores: Float64, segments: Segments) -> float:
    """UAR of each corpus, averaged over the corpora: the figure that chooses checkpoints."""
    predicted = scores.argmax(axis=1)
    values = []
    for corpus in sorted(set(segments.corpus.tolist())):
        rows = segments.corpus == corpus
        values.append(uar(confusion_matrix(segments.truth[rows], predicted[rows], scores.shape[1])))
    return float(np.mean(values))
