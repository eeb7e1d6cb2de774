"""What may be done to a decoded recording before anything is computed from it."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import librosa
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainer.pcm import SAMPLE_RATE_HZ, Int16, decode, to_float, to_int16

# The library's own, below which its stationary kind refuses a recording.
_GATE_SAMPLES = 1024


class PrepareSettings(BaseModel):
    """A recipe's `[prepare]` table.

    Attributes
    ----------
    trim
        where speech begins and ends. `speech`: at the daemon's resolution, see
        `speech_bounds`; `librosa`: as `librosa.effects.trim` has it with its own frames of
        2048 samples; `none`: the whole recording. Nothing is cut off: the bounds go with the
        recording, and evaluation of whole files does not look at them.
    top_db
        how far below the loudest frame silence begins. Absent: 38 for `speech`, 60 for
        `librosa`.
    noise_reduction
        spectral gating by the library noisereduce, on the whole recording, before trimming.
        `stationary` takes the recording's own average for the noise, so it eats into short
        recordings that have no pauses. Off by default: models that train on noise gain far
        more, and every denoiser tried cost accuracy where the noise was other people's speech.
    noise_reduction_strength
        share of the noise that is taken away.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trim: Literal["speech", "none", "librosa"] = "speech"
    top_db: float | None = Field(None, gt=0)
    noise_reduction: Literal["none", "stationary", "non-stationary"] = "none"
    noise_reduction_strength: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _used(self) -> PrepareSettings:
        if self.trim == "none" and self.top_db is not None:
            raise ValueError('top_db has no meaning with trim = "none"')
        return self

    def identity(self) -> str:
        """What a cache has to tell apart: the settings, and the library that they rely on."""
        gate = "" if self.noise_reduction == "none" else importlib.metadata.version("noisereduce")
        return self.model_dump_json() + gate


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recording: int16 [samples] at 16 kHz, and where its speech begins and ends."""

    samples: Int16
    bounds: tuple[int, int]


def speech_bounds(
    samples: Int16,
    below_peak_db: float = 38.0,
    frame_length: int = 512,
    hop_length: int = 128,
) -> tuple[int, int]:
    """First and last sample of a clean recording's speech, by energy below its loudest frame.

    It stands in for the daemon's voice activity, whose utterances have no long silence around
    them. Meant for studio recordings only.
    """
    if not samples.any():
        return 0, len(samples)
    _, (start, end) = librosa.effects.trim(
        to_float(samples), top_db=below_peak_db, frame_length=frame_length, hop_length=hop_length
    )
    return int(start), int(end)


def reduce_noise(samples: Int16, stationary: bool, strength: float = 1.0) -> Int16:
    """Spectral gating with the defaults of noisereduce (Sainburg, 2019); the same length back.

    Recordings under 64 ms come back as they are.
    """
    from noisereduce import reduce_noise as gate

    if len(samples) < _GATE_SAMPLES or not samples.any():
        return samples
    # Digital silence of half a minute and more is divided by itself in there.
    with np.errstate(invalid="ignore", divide="ignore"):
        cleaned = gate(
            y=to_float(samples),
            sr=SAMPLE_RATE_HZ,
            stationary=stationary,
            prop_decrease=strength,
            n_fft=_GATE_SAMPLES,
        )
    return to_int16(np.nan_to_num(cleaned))


def prepare_samples(samples: Int16, settings: PrepareSettings) -> Prepared:
    """Do to one recording what the settings say; `samples` is left as it is."""
    if settings.noise_reduction != "none":
        samples = reduce_noise(
            samples, settings.noise_reduction == "stationary", settings.noise_reduction_strength
        )
    match settings.trim:
        case "none":
            bounds = (0, len(samples))
        case "speech":
            bounds = speech_bounds(samples, settings.top_db or 38.0)
        case "librosa":
            bounds = speech_bounds(samples, settings.top_db or 60.0, 2048, 512)
    return Prepared(samples, bounds)


def prepare_file(path: Path, settings: PrepareSettings) -> Prepared:
    """Decode a file and prepare it.

    Raises
    ------
    TrainerError
        see `trainer.pcm.decode`.
    """
    return prepare_samples(decode(path), settings)
