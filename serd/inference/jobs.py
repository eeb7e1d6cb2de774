"""Segments on their way through the inference stage: what is asked, of whom, and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from serd.inference.model import Segment
from serd.types import Float32Array, Int16Array


class DropReason(StrEnum):
    """Why a segment got no result."""

    OVERLOAD = "overload"
    MODEL_ERROR = "model_error"
    STOPPED = "stopped"


class Scorer(Protocol):
    """What the worker needs of a model; `EmotionModel` is one."""

    @property
    def largest_batch(self) -> int:
        """Segments beyond which a larger batch gains nothing."""
        ...

    @property
    def compute_ns(self) -> int:
        """CPU time spent inside the model's runtime so far."""
        ...

    def score(self, segments: Sequence[Segment]) -> Float32Array:
        """Probabilities float32 ``[n, labels]`` of `n` segments."""
        ...


@dataclass(slots=True)
class SegmentJob:
    """One segment to score.

    `audio`: int16 ``[n]`` at `sample_rate_hz`; `queued_ns`: monotonic time of its submission;
    `context`: whatever the submitter wants to find again in the result.
    """

    audio: Int16Array
    sample_rate_hz: int
    queued_ns: int
    context: Any = None


@dataclass(slots=True)
class Result:
    """The score of one job.

    `probabilities`: float32 ``[labels]``, sum 1; `started_ns`, `finished_ns`: monotonic times of
    its batch; `batch`: jobs that were run together; `model`: what the worker was given beside the
    models that scored it.
    """

    job: SegmentJob
    probabilities: Float32Array
    started_ns: int
    finished_ns: int
    batch: int
    model: Any = None
