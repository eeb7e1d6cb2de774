"""What a model manifest contains, and what in it must agree with what else."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    field_validator,
    model_validator,
)

from serd.errors import ModelError
from serd.types import FRAME_MS, NATIVE_RATES_HZ

MANIFEST_VERSION = 1
"""Version of the manifest format that this serd reads."""

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FileReference(_Part):
    """Where the ONNX file is, and the SHA-256 that it must have.

    Without `package`, `path` is relative to the manifest's folder. With it, `path` is relative
    to the folder of the import package `module` (default: `package` with underscores), which the
    distribution `package` installs; the package is located and never imported.
    """

    path: Text
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    package: Text | None = None
    module: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None

    @field_validator("path")
    @classmethod
    def _inside_its_folder(cls, path: str) -> str:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise ValueError("must be a relative path without '..'")
        return path

    @model_validator(mode="after")
    def _module_belongs_to_a_package(self) -> Self:
        if self.module is not None and self.package is None:
            raise ValueError("'module' is given without 'package'")
        return self


class AudioInput(_Part):
    """Names and shape of the graph's inputs.

    `audio`: float32 ``[batch, samples]`` in [-1, 1] at `sample_rate_hz`; `length`: int64
    ``[batch]``, valid samples of each row, the rest being zero padding.
    """

    audio: Text
    length: Text
    sample_rate_hz: Count
    samples: Count

    @field_validator("sample_rate_hz")
    @classmethod
    def _native(cls, rate_hz: int) -> int:
        return _native_rate(rate_hz)

    @model_validator(mode="after")
    def _two_inputs(self) -> Self:
        if self.audio == self.length:
            raise ValueError("'audio' and 'length' name the same graph input")
        return self


class UnpaddedGraph(_Part):
    """A second graph of the same weights, for rows that have no padding.

    It has no input but the audio, float32 ``[batch, samples]`` in [-1, 1] at `sample_rate_hz` with
    both axes free, and gives the logits that the other graph gives for the same audio, resampled.
    Its inputs and outputs have the other's names. `least_samples` are what it needs of a row.
    """

    file: FileReference
    sample_rate_hz: Count
    least_samples: Count

    @field_validator("sample_rate_hz")
    @classmethod
    def _native(cls, rate_hz: int) -> int:
        return _native_rate(rate_hz)


class LogitsOutput(_Part):
    """Name of the graph's output: float32 ``[batch, labels]``, before calibration."""

    logits: Text


class Frontend(_Part):
    """Constants of the log-mel front end inside the graph (lengths in samples)."""

    n_fft: Count
    win_length: Count
    hop_length: Count
    n_mels: Count
    fmin_hz: Annotated[float, Field(ge=0.0)]
    fmax_hz: Annotated[float, Field(gt=0.0)]
    window: Literal["hann"]
    log_floor: Annotated[float, Field(gt=0.0)]
    mel: Literal["slaney", "htk"]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} is longer than n_fft {self.n_fft}")
        if self.fmin_hz >= self.fmax_hz:
            raise ValueError(f"fmin_hz {self.fmin_hz:g} is not below fmax_hz {self.fmax_hz:g}")
        return self


class Calibration(_Part):
    """Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).

    Probabilities are ``softmax(logits / temperature)``; a top score below `abstain_below` makes
    the result abstained.
    """

    method: Literal["temperature"]
    temperature: Annotated[float, Field(gt=0.0)]
    abstain_below: Annotated[float, Field(ge=0.0, lt=1.0)]


class Speakers(_Part):
    """Speakers of each part of the split, as ``corpus/speaker``; no one may be in two parts."""

    train: tuple[Text, ...]
    validation: tuple[Text, ...]
    test: tuple[Text, ...]

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        parts = {name: set(getattr(self, name)) for name in ("train", "validation", "test")}
        for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
            both = sorted(parts[first] & parts[second])
            if both:
                raise ValueError(f"{', '.join(both)} in both '{first}' and '{second}'")
        return self


class Training(_Part):
    """What the model was trained on and how."""

    corpora: Annotated[tuple[Text, ...], Field(min_length=1)]
    recipe: Text
    seed: int
    commit: str | None
    speakers: Speakers
    protocol: Text


class Metric(_Part):
    """One evaluation: unweighted average recall and accuracy over `count` recordings."""

    corpus: Text
    protocol: Text
    condition: Text
    uar: Share
    accuracy: Share
    count: Count


class _Manifest(_Part):
    manifest_version: int
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    version: Count
    file: FileReference
    licence: Text

    _path: Path | None = PrivateAttr(default=None)

    @field_validator("manifest_version")
    @classmethod
    def _known_version(cls, version: int) -> int:
        if version != MANIFEST_VERSION:
            raise ValueError(f"this serd reads manifest version {MANIFEST_VERSION}, not {version}")
        return version

    def read_from(self, path: Path) -> None:
        """Remember the file that the manifest was read from; its model lies relative to it."""
        self._path = path.absolute()

    @property
    def path(self) -> Path | None:
        """The file that the manifest was read from, or None when it was made in memory."""
        return self._path

    @property
    def where(self) -> str:
        """How error messages call the manifest."""
        return str(self._path or f"manifest of {self.name}")

    @property
    def identity(self) -> str:
        """Name, version and file of the model as events carry it: ``serd-crnn-1@sha256:ab12…``.

        The first 12 hexadecimal digits of the SHA-256 are given.
        """
        return f"{self.name}-{self.version}@sha256:{self.file.sha256[:12]}"


class EmotionManifest(_Manifest):
    """Manifest of a model that scores the emotion of a segment."""

    kind: Literal["emotion"]
    input: AudioInput
    output: LogitsOutput
    labels: Annotated[tuple[Text, ...], Field(min_length=2)]
    frontend: Frontend | None
    calibration: Calibration
    training: Training
    metrics: tuple[Metric, ...]
    unpadded: UnpaddedGraph | None = None

    @field_validator("labels")
    @classmethod
    def _unique(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        doubled = sorted({label for label in labels if labels.count(label) > 1})
        if doubled:
            raise ValueError(f"{', '.join(doubled)} given twice")
        return labels

    @model_validator(mode="after")
    def _frontend_fits_the_rate(self) -> Self:
        if self.frontend is not None and self.frontend.fmax_hz * 2 > self.input.sample_rate_hz:
            raise ValueError(
                f"frontend.fmax_hz {self.frontend.fmax_hz:g} is above half of "
                f"input.sample_rate_hz {self.input.sample_rate_hz}"
            )
        return self

    def check_window(self, window_s: float) -> None:
        """Refuse segments that the model's input cannot hold.

        Raises
        ------
        ModelError
            ``window_too_long`` when `window_s` seconds are more than ``input.samples``.
        """
        needed = math.ceil(round(window_s * self.input.sample_rate_hz, 6))
        if needed > self.input.samples:
            holds_s = self.input.samples / self.input.sample_rate_hz
            raise ModelError(
                "window_too_long",
                f"{self.where}: input.samples: segment.window_s = {window_s:g} needs {needed} "
                f"samples, the model takes {self.input.samples} ({holds_s:g} s)",
            )


class VadRate(_Part):
    """Frame and context, in samples, of a voice-activity model at one sample rate."""

    sample_rate_hz: Count
    frame_samples: Count
    context_samples: Annotated[int, Field(ge=0)]

    @field_validator("sample_rate_hz")
    @classmethod
    def _native(cls, rate_hz: int) -> int:
        return _native_rate(rate_hz)


class VadManifest(_Manifest):
    """Manifest of a model that gives the speech probability of a frame."""

    kind: Literal["vad"]
    frame_ms: Count
    rates: Annotated[tuple[VadRate, ...], Field(min_length=1)]
    state_shape: Annotated[tuple[Count | Literal["batch"], ...], Field(min_length=2)]

    @field_validator("frame_ms")
    @classmethod
    def _the_frame(cls, frame_ms: int) -> int:
        if frame_ms != FRAME_MS:
            raise ValueError(f"serd's frames are {FRAME_MS} ms, not {frame_ms}")
        return frame_ms

    @field_validator("state_shape")
    @classmethod
    def _one_batch_axis(cls, shape: tuple[int | str, ...]) -> tuple[int | str, ...]:
        if shape.count("batch") != 1:
            raise ValueError("exactly one axis must be 'batch'")
        return shape

    @model_validator(mode="after")
    def _frames_are_as_long_as_said(self) -> Self:
        seen: set[int] = set()
        for rate in self.rates:
            if rate.sample_rate_hz in seen:
                raise ValueError(f"rates: {rate.sample_rate_hz} Hz given twice")
            seen.add(rate.sample_rate_hz)
            expected = rate.sample_rate_hz * self.frame_ms // 1000
            if rate.frame_samples != expected:
                raise ValueError(
                    f"rates: frame_samples at {rate.sample_rate_hz} Hz must be {expected} "
                    f"({self.frame_ms} ms), not {rate.frame_samples}"
                )
        return self

    def rate(self, sample_rate_hz: int) -> VadRate:
        """Frame and context at `sample_rate_hz`; ModelError ``manifest_value`` if not there."""
        for rate in self.rates:
            if rate.sample_rate_hz == sample_rate_hz:
                return rate
        given = ", ".join(str(rate.sample_rate_hz) for rate in self.rates)
        raise ModelError(
            "manifest_value", f"{self.where}: rates: no {sample_rate_hz} Hz (there: {given})"
        )


Manifest = EmotionManifest | VadManifest


def _native_rate(rate_hz: int) -> int:
    if rate_hz not in NATIVE_RATES_HZ:
        rates = " or ".join(str(rate) for rate in NATIVE_RATES_HZ)
        raise ValueError(f"must be {rates}, not {rate_hz}")
    return rate_hz
