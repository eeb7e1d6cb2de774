"""Recordings to emotions: files in, scored segments and files out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr

from serd.errors import ModelError
from serd.inference.manifest import load_emotion_manifest, resolve_model, verify_file
from trainer.audio import WINDOW_SAMPLES, windows
from trainer.errors import TrainerError
from trainer.evaluate import Hearing, logits_only
from trainer.metrics import Float64, Int64
from trainer.pcm import SAMPLE_RATE_HZ, Float32, Int16, decode, to_float, to_int16
from trainer.predictions import Predictions, average_segments, load_predictions, softmax
from trainer.preparation import PrepareSettings, prepare_samples
from trainer.protocol_settings import is_speaker_dependent

if TYPE_CHECKING:
    from trainer.reporting.build import FoldRun

_PADDING_SAMPLES = 3200
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Listener:
    """A model, what its scores mean, and how recordings are prepared for it.

    Attributes
    ----------
    calibrated
        whether temperature and threshold come from held-out speakers.
    """

    name: str
    labels: tuple[str, ...]
    hear: Hearing
    temperature: float
    abstain_below: float
    calibrated: bool
    prepare: PrepareSettings


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores float64 [labels] of a stretch of a recording, in seconds from its start."""

    start_s: float
    end_s: float
    scores: Float64

    def best(self) -> int:
        """The label of the top score."""
        return int(self.scores.argmax())


@dataclass(frozen=True, slots=True)
class Heard:
    """What a model said of a file: of its segments, and of all of it, by duration."""

    path: Path
    whole: Scored
    segments: tuple[Scored, ...]


def find_listener(model: str) -> Listener:
    """A model by name, by manifest or ONNX file, or by the folder of a training run.

    Raises
    ------
    TrainerError
        there is no such model, or its files are damaged or missing.
    """
    folder = Path(model).expanduser()
    if folder.is_dir() and (
        any((folder / name).is_file() for name in ("experiment.json", "split.json"))
        or not any(folder.glob("*.json"))
    ):
        return _of_run(folder)
    return _of_manifest(model)


def _of_manifest(model: str) -> Listener:
    from trainer.graph import onnx_session

    try:
        manifest = load_emotion_manifest(resolve_model(model))
        path = verify_file(manifest)
    except ModelError as error:
        raise TrainerError(str(error)) from None
    takes = manifest.input
    if takes.sample_rate_hz != SAMPLE_RATE_HZ or takes.samples < WINDOW_SAMPLES:
        raise TrainerError(
            f"{manifest.where}: input: segments here are of {WINDOW_SAMPLES} samples at "
            f"{SAMPLE_RATE_HZ} Hz, the model takes {takes.samples} at {takes.sample_rate_hz} Hz."
        )
    session = onnx_session(path)

    def predict(audio: Float32, length: Int64) -> Float32:
        wide = np.pad(audio, ((0, 0), (0, takes.samples - audio.shape[1])))
        (logits,) = session.run([manifest.output.logits], {takes.audio: wide, takes.length: length})
        return np.asarray(logits, np.float32)

    return Listener(
        name=manifest.identity,
        labels=manifest.labels,
        hear=logits_only(predict),
        temperature=manifest.calibration.temperature,
        abstain_below=manifest.calibration.abstain_below,
        calibrated=True,
        prepare=PrepareSettings(),
    )


def _of_run(folder: Path) -> Listener:
    from trainer.experiment import load_resolved
    from trainer.one_run import load_hearing
    from trainer.origin import choose_fold

    root, run = choose_fold(folder)
    recipes = load_resolved(root)
    if run.model not in recipes:
        raise TrainerError(f"{root / 'recipe.toml'} has no model {run.model!r}.")
    recipe = recipes[run.model]
    temperature, threshold, calibrated = _calibration_of(root, run)
    return Listener(
        name=f"{recipe.name} {run.protocol.name}/{run.model}/{run.fold}",
        labels=recipe.label_map.labels,
        hear=load_hearing(recipe, run.folder),
        temperature=temperature,
        abstain_below=threshold,
        calibrated=calibrated,
        prepare=recipe.prepare,
    )


def _calibration_of(root: Path, run: FoldRun) -> tuple[float, float, bool]:
    """Temperature, threshold, and whether there was anything to fit them on.

    A model that everybody trained takes those of the first protocol that kept speakers apart.
    """
    from trainer.reporting.build import read_experiment
    from trainer.reporting.calibration import calibrate_folds, calibration_figures

    protocols: dict[str, dict[str, list[Predictions]]] = {}
    for one in read_experiment(root):
        says = one.protocol == run.protocol or not is_speaker_dependent(one.protocol)
        if one.model == run.model and says and one.predictions.is_file():
            folds = protocols.setdefault(one.protocol.name, {})
            folds[one.fold] = load_predictions(one.predictions)
    if run.protocol.kind != "all":
        for fold in calibrate_folds(protocols.get(run.protocol.name, {})):
            if fold.fold == run.fold and fold.source != "none":
                return fold.temperature, fold.abstain_below, True
        return 1.0, 0.0, False
    for folds in protocols.values():
        figures = calibration_figures(folds, [])
        if figures is not None:
            return figures.temperature, figures.abstain_below, True
    return 1.0, 0.0, False


def decode_any(path: Path) -> Int16:
    """Samples of any file that holds sound, channels averaged, at 16 kHz: int16 [samples].

    What libsndfile does not read is tried with FFmpeg's libraries, where PyAV is installed.

    Raises
    ------
    TrainerError
        the file cannot be read, or is empty.
    """
    if path.is_dir():
        raise TrainerError(f"{path} holds no audio file.")
    if not path.exists():
        raise TrainerError(f"{path} does not exist.")
    try:
        samples = decode(path)
    except TrainerError as error:
        samples = _with_ffmpeg(path, error)
    if not len(samples):
        raise TrainerError(f"{path} is empty.")
    return samples


def _with_ffmpeg(path: Path, error: TrainerError) -> Int16:
    try:
        import av
    except ModuleNotFoundError:
        raise error from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise TrainerError(f"{path} holds no sound.") from None
            rate_hz = container.streams.audio[0].rate
            resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
            pieces = [
                frame.to_ndarray()[0]
                for raw in container.decode(audio=0)
                for frame in resampler.resample(raw)
            ]
    except (av.FFmpegError, OSError, ValueError):
        raise error from None
    if not pieces:
        raise error
    mono = np.concatenate(pieces)
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
    return to_int16(mono)


def listen(listener: Listener, path: Path, whole_file: bool = False) -> Heard:
    """Score a file as the daemon would score its speech, or, `whole_file`, silence and all.

    Raises
    ------
    TrainerError
        the file cannot be read, or is empty.
    """
    prepared = prepare_samples(decode_any(path), listener.prepare)
    start, end = 0, len(prepared.samples)
    if not whole_file:
        start = max(0, prepared.bounds[0] - _PADDING_SAMPLES)
        end = min(end, prepared.bounds[1] + _PADDING_SAMPLES)
    speech = to_float(prepared.samples[start:end])
    cuts = windows(len(speech))
    logits = np.concatenate(list(_logits(listener, speech, cuts))).astype(np.float64)
    scores = softmax(logits, listener.temperature)
    length = np.asarray([b - a for a, b in cuts], np.int64)
    mean = average_segments(scores, length, np.zeros(len(cuts), np.int64), 1)[0]
    return Heard(
        path=path,
        whole=_scored(start, end, mean),
        segments=tuple(
            _scored(start + a, start + b, row) for (a, b), row in zip(cuts, scores, strict=True)
        ),
    )


def _scored(start: int, end: int, scores: Float64) -> Scored:
    return Scored(start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ, scores)


def _logits(
    listener: Listener, speech: Float32, cuts: Sequence[tuple[int, int]]
) -> Iterator[Float32]:
    for first in range(0, len(cuts), _BATCH):
        some = cuts[first : first + _BATCH]
        audio = np.zeros((len(some), WINDOW_SAMPLES), np.float32)
        for row, (a, b) in enumerate(some):
            audio[row, : b - a] = speech[a:b]
        yield listener.hear(audio, np.asarray([b - a for a, b in some], np.int64))[0]
