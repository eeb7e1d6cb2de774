"""What a model said on one part of a split: the file that every figure and plot is made from.

One `predictions.npz` a fold holds the validation and the test part under each condition. Logits
are kept by segment and before calibration, so that a report can fit a temperature, weight segments
or leave labels out without running the model again.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from trainer.audio import save_atomically
from trainer.errors import TrainerError
from trainer.splits import Part

Condition = Literal["clean", "telephone-mulaw-8k", "whole-file"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)

DAEMON_CONDITIONS: tuple[Condition, ...] = ("clean", "telephone-mulaw-8k")
"""Those that the daemon meets: they choose epochs, temperatures and thresholds."""

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Strings = npt.NDArray[np.str_]

_VERSION = 1
_STRINGS = ("path", "corpus", "speaker", "sex", "language", "intensity")
_ARRAYS = (*_STRINGS, "truth", "owner", "length", "logits", "embedding")


def softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Float64:
    """Softmax over the last axis of logits / temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponent = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(exponent / exponent.sum(axis=-1, keepdims=True), np.float64)


def average_segments(scores: Float64, length: Int64, owner: Int64, utterances: int) -> Float64:
    """Mean of segment rows, weighted by duration: float64 [utterances, columns].

    Parameters
    ----------
    scores
        float64 [segments, columns]
    length
        int64 [segments], samples
    owner
        int64 [segments], row of the utterance.
    """
    weight = np.maximum(length, 1).astype(np.float64)
    total = np.zeros((utterances, scores.shape[1]))
    np.add.at(total, owner, scores * weight[:, None])
    return total / np.bincount(owner, weights=weight, minlength=utterances)[:, None]


def _none() -> Strings:
    return np.zeros(0, np.str_)


@dataclass(frozen=True, slots=True)
class Predictions:
    """One model, one part, one condition.

    Attributes
    ----------
    part, condition
        what was heard, and how.
    labels
        the model's, in the order of the logits' columns.
    path, corpus, speaker, sex, language, intensity
        [utterances]; "" where unknown. `intensity` left out is unknown for all.
    truth
        int64 [utterances], index into `labels`.
    owner
        int64 [segments], row of the utterance; each utterance has a segment.
    length
        int64 [segments], valid samples.
    logits
        float32 [segments, labels], before calibration.
    embedding
        float32 [utterances, size], mean over an utterance's segments; size may be 0.
    """

    part: Part
    condition: Condition
    labels: tuple[str, ...]
    path: Strings
    corpus: Strings
    speaker: Strings
    sex: Strings
    language: Strings
    truth: Int64
    owner: Int64
    length: Int64
    logits: Float32
    embedding: Float32
    intensity: Strings = field(default_factory=_none)

    def __post_init__(self) -> None:
        count = len(self.truth)
        if not len(self.intensity):
            object.__setattr__(self, "intensity", np.full(count, "", np.str_))
        for name in (*_STRINGS, "embedding"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name} has {len(getattr(self, name))} rows, truth {count}")
        if self.logits.shape != (len(self.owner), len(self.labels)):
            raise ValueError(
                f"logits have the shape {self.logits.shape}, "
                f"not {(len(self.owner), len(self.labels))}"
            )
        if len(self.length) != len(self.owner):
            raise ValueError("length and owner differ in their rows")
        if not np.array_equal(np.unique(self.owner), np.arange(count)):
            raise ValueError("each utterance must own a segment, and each segment an utterance")
        if count and not 0 <= int(self.truth.min()) <= int(self.truth.max()) < len(self.labels):
            raise ValueError("truth holds a label that is not there")

    def __len__(self) -> int:
        return len(self.truth)

    def scores(
        self, temperature: float = 1.0, allowed: npt.NDArray[np.bool_] | None = None
    ) -> Float64:
        """Duration-weighted mean of the segments' softmax: float64 [utterances, labels].

        Parameters
        ----------
        temperature
            divides the logits.
        allowed
            bool [utterances, labels]: only these labels compete, the others score 0.
        """
        logits = self.logits.astype(np.float64)
        if allowed is not None:
            logits = np.where(allowed[self.owner], logits, -np.inf)
        return average_segments(
            softmax(logits, temperature), self.length, self.owner, len(self.truth)
        )

    def rows(self, chosen: npt.NDArray[np.bool_]) -> Predictions:
        """The utterances where `chosen`, bool [utterances], and their segments."""
        place = np.cumsum(chosen) - 1
        segments = chosen[self.owner]
        kept: dict[str, Any] = {
            name: getattr(self, name)[chosen] for name in (*_STRINGS, "truth", "embedding")
        }
        return replace(
            self,
            **kept,
            owner=place[self.owner[segments]].astype(np.int64),
            length=self.length[segments],
            logits=self.logits[segments],
        )


def join(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several folds as one, utterances in the order given.

    Embeddings are dropped where the folds' sizes differ: they are of different models.

    Raises
    ------
    ValueError
        parts, conditions or labels differ.
    """
    first = parts[0]
    for other in parts:
        if (other.part, other.condition, other.labels) != (
            first.part,
            first.condition,
            first.labels,
        ):
            raise ValueError("predictions of different parts, conditions or labels")
    starts = np.cumsum([0, *(len(p) for p in parts)])
    alike = len({p.embedding.shape[1] for p in parts}) == 1
    values: dict[str, Any] = {
        name: np.concatenate([getattr(p, name) for p in parts])
        for name in (*_STRINGS, "truth", "length", "logits")
    }
    return replace(
        first,
        **values,
        owner=np.concatenate([p.owner + start for p, start in zip(parts, starts, strict=False)]),
        embedding=np.concatenate([p.embedding for p in parts])
        if alike
        else np.zeros((int(starts[-1]), 0), np.float32),
    )


def save_predictions(path: Path, predictions: Sequence[Predictions]) -> None:
    """Write a fold's predictions, whole or not at all.

    Raises
    ------
    TrainerError
        the folder cannot be written, or the disk is full.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "version": np.asarray(_VERSION),
        "count": np.asarray(len(predictions)),
    }
    for i, one in enumerate(predictions):
        for item in fields(Predictions):
            arrays[f"{i}.{item.name}"] = np.asarray(getattr(one, item.name))
    save_atomically(path, **arrays)


def load_predictions(path: Path) -> list[Predictions]:
    """Read a fold's predictions.

    Raises
    ------
    TrainerError
        there is no such file, or it is not one of ours.
    """
    try:
        # numpy leaves a file that is no archive open if it is given a path
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if int(arrays["version"]) != _VERSION:
                raise TrainerError(f"{path} was written by another version of the trainer.")
            return [_read(arrays, i) for i in range(int(arrays["count"]))]
    except FileNotFoundError:
        raise TrainerError(f"{path} does not exist: has this fold been trained?") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise TrainerError(f"{path} holds no predictions of this trainer: {error}") from None


def _read(arrays: Any, i: int) -> Predictions:
    values = {name: arrays[f"{i}.{name}"] for name in _ARRAYS}
    return Predictions(
        part=str(arrays[f"{i}.part"]),  # type: ignore[arg-type]  # checked when written
        condition=str(arrays[f"{i}.condition"]),  # type: ignore[arg-type]  # likewise
        labels=tuple(str(label) for label in arrays[f"{i}.labels"]),
        **values,
    )
