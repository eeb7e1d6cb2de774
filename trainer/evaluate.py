"""What a model says of recordings: as the daemon would hear them, over the telephone, and whole.

For "clean" an utterance is cut to its speech with 0.2 s of padding; "telephone-mulaw-8k" is the
same audio through the telephone; "whole-file" is the recording as it is, which published figures
are made on. Each is then cut into the daemon's segments, and an utterance's scores are the mean of
its segments' scores, weighted by duration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from trainer.audio import WINDOW_SAMPLES, Clips, Float32, to_float, windows
from trainer.augment import telephone
from trainer.labels import EIGHT
from trainer.metrics import Float64, Int64, corpus_mean
from trainer.models.base import EmotionModel
from trainer.predictions import (
    CONDITIONS,
    Condition,
    Predictions,
    average_segments,
    softmax,
)
from trainer.splits import Part

__all__ = [
    "Condition",
    "Hearing",
    "Predictor",
    "Segments",
    "corpus_mean_uar",
    "cut_segments",
    "logits_only",
    "predict_clips",
    "segment_logits",
    "softmax",
    "torch_hearing",
    "torch_predictor",
    "utterance_scores",
]

Predictor = Callable[[Float32, Int64], Float32]
"""Audio float32 [batch, 48000] and length int64 [batch] to logits float32 [batch, labels]."""

Hearing = Callable[[Float32, Int64], tuple[Float32, Float32]]
"""As `Predictor`, but to logits and embeddings float32 [batch, size]; size may be 0."""


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


def torch_predictor(model: torch.nn.Module) -> Predictor:
    """A model in evaluation mode as a predictor, on the device where it is."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def predict(audio: Float32, length: Int64) -> Float32:
        with torch.inference_mode():
            logits = model(torch.from_numpy(audio).to(device), torch.from_numpy(length).to(device))
        return np.asarray(logits.float().cpu().numpy(), np.float32)

    return predict


def torch_hearing(model: EmotionModel) -> Hearing:
    """A model in evaluation mode, with the embeddings that its head scores."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def hear(audio: Float32, length: Int64) -> tuple[Float32, Float32]:
        with torch.inference_mode():
            steps, mask = model.steps(
                torch.from_numpy(audio).to(device), torch.from_numpy(length).to(device)
            )
            embedding = model.pool(steps, mask)
            logits = model.head(embedding)
        return (
            np.asarray(logits.float().cpu().numpy(), np.float32),
            np.asarray(embedding.float().cpu().numpy(), np.float32),
        )

    return hear


def logits_only(predict: Predictor) -> Hearing:
    """A predictor without embeddings, such as an ONNX file, where a hearing is wanted."""

    def hear(audio: Float32, length: Int64) -> tuple[Float32, Float32]:
        return predict(audio, length), np.zeros((len(length), 0), np.float32)

    return hear


def cut_segments(
    clips: Clips,
    indices: Sequence[int],
    condition: Condition,
    labels: Sequence[str] = EIGHT,
) -> Segments:
    """Segments of the utterances at `indices`, as the daemon cuts them.

    `labels` are the model's, the utterances' labels among them.
    """
    audio, length, owner = [], [], []
    for row, index in enumerate(indices):
        whole = condition == "whole-file"
        samples = to_float(clips.clip(index) if whole else clips.speech(index))
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
        truth=np.asarray([labels.index(u.label) for u in chosen], np.int64),
        corpus=np.asarray([u.corpus for u in chosen]),
    )


def predict_clips(
    hear: Hearing,
    clips: Clips,
    part: Part,
    labels: Sequence[str],
    conditions: Sequence[Condition] = CONDITIONS,
    batch: int = 64,
) -> list[Predictions]:
    """What a model says of every recording, under each condition.

    Parameters
    ----------
    labels
        the model's, in the order of its logits.
    batch
        segments heard at once, and utterances held in memory at once.
    """
    return [_predict(hear, clips, part, tuple(labels), c, batch) for c in conditions]


def _predict(
    hear: Hearing,
    clips: Clips,
    part: Part,
    labels: tuple[str, ...],
    condition: Condition,
    batch: int,
) -> Predictions:
    pieces: list[tuple[Int64, Int64, Float32, Float32]] = []
    for first in range(0, len(clips), batch):
        some = cut_segments(clips, range(first, min(first + batch, len(clips))), condition, labels)
        heard = [
            hear(some.audio[i : i + batch], some.length[i : i + batch])
            for i in range(0, len(some.length), batch)
        ]
        logits, embedding = (np.concatenate(column) for column in zip(*heard, strict=True))
        mean = average_segments(
            embedding.astype(np.float64), some.length, some.owner, len(some.truth)
        )
        pieces.append((some.owner + first, some.length, logits, mean.astype(np.float32)))
    owner, length, logits, embedding = (
        np.concatenate(column) for column in zip(*pieces, strict=True)
    )
    utterances = clips.utterances
    return Predictions(
        part=part,
        condition=condition,
        labels=labels,
        path=np.asarray([str(u.path) for u in utterances]),
        corpus=np.asarray([u.corpus for u in utterances]),
        speaker=np.asarray([u.speaker for u in utterances]),
        sex=np.asarray([u.sex or "" for u in utterances]),
        language=np.asarray([u.language for u in utterances]),
        intensity=np.asarray([u.intensity or "" for u in utterances]),
        truth=np.asarray([labels.index(u.label) for u in utterances], np.int64),
        owner=owner,
        length=length,
        logits=logits,
        embedding=embedding,
    )


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
    return average_segments(
        softmax(logits, temperature), segments.length, segments.owner, len(segments.truth)
    )


def corpus_mean_uar(scores: Float64, segments: Segments) -> float:
    """UAR of each corpus, averaged over the corpora: the figure that chooses checkpoints."""
    said = np.asarray(scores.argmax(axis=1), np.int64)
    return corpus_mean(segments.truth, said, segments.corpus, scores.shape[1])
