"""An emotion model on ONNX Runtime: fixed batch sizes, calibrated probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from serd.audio.resample import to_model_rate
from serd.errors import ModelError
from serd.inference.device import pin
from serd.inference.manifest import (
    EmotionManifest,
    load_emotion_manifest,
    verify_file,
    verify_unpadded_file,
)
from serd.inference.providers import CPU, CUDA, Device, LiveSession, open_session
from serd.inference.runner import Feed, Precision, Runner, quickest_runner, runner
from serd.inference.signature import check_signature, check_unpadded_signature
from serd.inference.trial import Trial, like_speech
from serd.types import Float32Array, Int16Array, Int64Array

BATCH_SIZES = (1, 2, 4, 8, 16, 32)

# Measured with serd-crnn on one thread by tests/bench/inference.py: ms of CPU that 3 s of 8 kHz
# speech cost in batches of 1, 2, 4, 8, 16: 3.38, 2.81, 2.85, 3.03, 2.95; resampled and padded 3.43
# in batches of 4. Beyond 8 there is nothing to win, and the first row waits for the last. A second
# thread costs 1.2 times the CPU time.
_LARGEST_ON_CPU = 8

_UNIT = np.float32(1.0 / 32768.0)


class Segment(Protocol):
    """Audio to score: int16 ``[n]`` at `sample_rate_hz`."""

    @property
    def audio(self) -> Int16Array:
        """Its samples, every one valid."""
        ...

    @property
    def sample_rate_hz(self) -> int:
        """Their rate, 8000 or 16000."""
        ...


class EmotionModel:
    """Scores segments of speech. One thread at a time may call `score` or `run`.

    A manifest may name a second graph, for rows without padding (see `UnpaddedGraph`). Segments
    at that graph's rate are put together by their length and go there; all others are brought to
    the model's rate, padded to its length and go through `run`. Which way a segment takes makes
    no difference to its scores beyond 1e-3, and the way does not depend on other segments.

    Parameters
    ----------
    manifest
        What the model is; `load` reads and checks it.
    live
        The open session and the provider that it really runs on.
    unpadded
        The same of the graph for rows without padding, where the manifest has one.
    batch_sizes
        Batch sizes that the session ever sees of padded rows, and on a GPU of all, so that the
        buffers and kernels made during `warm_up` are the ones used later. On the CPU, where a run
        costs as much as its rows, other batches are split into these sizes, of which those above
        8 are left out; on a GPU, where it costs its launches, they are filled up to the next size
        with silent rows.
    precision
        ``float32``, or ``tf32`` for a GPU's faster products, where scores stay within 5e-3.

    Attributes
    ----------
    manifest, labels, samples, sample_rate_hz, abstain_below, identity
        From the manifest; `samples` is the length of a row of input.
    provider
        The live provider, ``CPUExecutionProvider`` or ``CUDAExecutionProvider``.
    provider_reason
        Why that one, when the user did not ask for it by name.
    batch_sizes, largest_batch
        The sizes in use, ascending, and the last of them: `run` takes more rows, one run after
        the other, and gains nothing by it.
    """

    def __init__(
        self,
        manifest: EmotionManifest,
        live: LiveSession,
        batch_sizes: Sequence[int] = BATCH_SIZES,
        unpadded: LiveSession | None = None,
        precision: Precision = "float32",
    ) -> None:
        if not batch_sizes or min(batch_sizes) < 1:
            raise ValueError(f"batch sizes must be positive, not {tuple(batch_sizes)}")
        self._opened = manifest, live, tuple(batch_sizes), unpadded, precision
        self._twins: list[EmotionModel] = []
        self.manifest = manifest
        self.labels = manifest.labels
        self.samples = manifest.input.samples
        self.sample_rate_hz = manifest.input.sample_rate_hz
        self.abstain_below = manifest.calibration.abstain_below
        self.identity = manifest.identity
        self.provider = live.provider
        self.provider_reason = live.reason
        sizes = sorted(set(batch_sizes))
        if live.provider == CPU:
            sizes = [size for size in sizes if size <= _LARGEST_ON_CPU] or sizes[:1]
        self.batch_sizes = tuple(sizes)
        self.largest_batch = sizes[-1]
        session: Any = live.session
        check_signature(manifest, session.get_inputs(), session.get_outputs())
        logits = manifest.output.logits
        self._padded = runner(live, logits, len(self.labels))
        shape = (self.largest_batch, self.samples)
        self._audio: Float32Array = np.zeros(shape, dtype=np.float32)
        self._length: Int64Array = np.zeros(self.largest_batch, dtype=np.int64)
        if live.provider == CUDA:
            pin(self._audio)
        self._unpadded: Runner | None = None
        if unpadded is not None and manifest.unpadded is not None:
            session = unpadded.session
            check_unpadded_signature(manifest, session.get_inputs(), session.get_outputs())
            self._unpadded = runner(unpadded, logits, len(self.labels))

    @classmethod
    def load(
        cls,
        manifest_path: str | Path,
        device: Device | str = Device.AUTO,
        threads: int = 1,
        batch_sizes: Sequence[int] = BATCH_SIZES,
        precision: Precision = "float32",
    ) -> EmotionModel:
        """Read the manifest, check the file's SHA-256, open it and compare the graph.

        Raises
        ------
        ModelError
            The manifest, the file or the graph is refused; the message names the field.
        DeviceError
            The device asked for is not there; the message says what is missing.
        """
        manifest = load_emotion_manifest(manifest_path)
        live = open_session(verify_file(manifest), device, threads)
        path = verify_unpadded_file(manifest)
        # On the device that the other got: `auto` must not decide twice.
        there = Device.CUDA if live.provider == CUDA else Device.CPU
        unpadded = None if path is None else open_session(path, there, threads)
        return cls(manifest, live, batch_sizes, unpadded, precision)

    def twin(self) -> EmotionModel:
        """The same model for another thread: open sessions in common, buffers of its own.

        Made before `warm_up`, it is warmed up with this one.
        """
        twin = EmotionModel(*self._opened)
        self._twins.append(twin)
        return twin

    @property
    def compute_ns(self) -> int:
        """CPU time inside the runtime's runs so far, see `Runner`. Any thread may ask."""
        unpadded = 0 if self._unpadded is None else self._unpadded.compute_ns
        return self._padded.compute_ns + unpadded

    def warm_up(self) -> None:
        """Run every batch size once, on faint noise; on a GPU settle how to run them at best.

        Raises
        ------
        ModelError
            What `run` raises: better now than with the first caller's speech.
        """
        noise = np.random.default_rng(0).standard_normal(self.samples, dtype=np.float32) * 0.01
        for size in self.batch_sizes:
            audio = np.broadcast_to(noise, (size, self.samples))
            self.run(audio, np.full(size, self.samples, dtype=np.int64))
            if (graph := self.manifest.unpadded) is not None:
                samples = self.samples * graph.sample_rate_hz // self.sample_rate_hz
                quiet = (noise[:samples] / _UNIT).astype(np.int16)
                self.score([_Piece(quiet, graph.sample_rate_hz)] * size)
        if self.provider == CUDA:
            self._settle()
            # On the CPU there is nothing that a twin does not share.
            for twin in self._twins:
                twin.warm_up()

    def _settle(self) -> None:
        manifest, live, _, unpadded, _ = self._opened
        names = manifest.input
        full = np.full(self.largest_batch, self.samples, np.int64)
        audio = self._like_speech(self.samples, self.sample_rate_hz)
        self._padded = self._quickest(
            self._padded, live, {names.audio: audio, names.length: full}, manifest.file.path
        )
        if self._unpadded is not None and unpadded is not None:
            graph = manifest.unpadded
            assert graph is not None, "there is no session without it"
            samples = self.samples * graph.sample_rate_hz // self.sample_rate_hz
            audio = self._like_speech(samples, graph.sample_rate_hz)
            self._unpadded = self._quickest(
                self._unpadded, unpadded, {names.audio: audio}, graph.file.path
            )

    def _like_speech(self, samples: int, rate_hz: int) -> Float32Array:
        return like_speech(self.largest_batch, samples, rate_hz).astype(np.float32) * _UNIT

    def _quickest(self, plain: Runner, live: LiveSession, feed: Feed, what: str) -> Runner:
        feeds = [{name: array[:size] for name, array in feed.items()} for size in self.batch_sizes]
        temperature = self.manifest.calibration.temperature
        # Every size is looked at, which also records those that are to be played back.
        trial: Trial[Runner] = Trial(
            lambda way: [calibrate(way.run(feed), temperature) for feed in feeds],
            lambda way: way.run(feeds[-1]),
        )
        output, precision = self.manifest.output.logits, self._opened[-1]
        return quickest_runner(plain, live, output, len(self.labels), trial, precision, what)

    def score(self, segments: Sequence[Segment]) -> Float32Array:
        """Calibrated probabilities of each label, as `run` gives them.

        Parameters
        ----------
        segments
            Any number, at any of the native rates, each no longer than the model's input.

        Returns
        -------
        float32 ``[len(segments), labels]``; each row sums to 1.

        Raises
        ------
        ModelError
            See `run`.
        ValueError
            A segment is empty or too long.
        """
        alike: dict[int, list[int]] = {}
        others: list[int] = []
        for row, segment in enumerate(segments):
            if self._needs_no_padding(segment):
                alike.setdefault(len(segment.audio), []).append(row)
            else:
                others.append(row)
        logits = np.empty((len(segments), len(self.labels)), dtype=np.float64)
        for samples, rows in alike.items():
            logits[rows] = self._score_alike([segments[row] for row in rows], samples)
        for start in range(0, len(others), self.largest_batch):
            rows = others[start : start + self.largest_batch]
            logits[rows] = self._score_padded([segments[row] for row in rows])
        return self._calibrated(logits)

    def _needs_no_padding(self, segment: Segment) -> bool:
        graph = self.manifest.unpadded
        if self._unpadded is None or graph is None:
            return False
        if segment.sample_rate_hz != graph.sample_rate_hz:
            return False
        samples = len(segment.audio)
        most = self.samples * graph.sample_rate_hz // self.sample_rate_hz
        # On a GPU few shapes are better than small ones.
        least = graph.least_samples if self.provider == CPU else most
        return least <= samples <= most

    def _score_alike(self, segments: Sequence[Segment], samples: int) -> Float32Array:
        assert self._unpadded is not None
        logits = np.empty((len(segments), len(self.labels)), dtype=np.float32)
        start = 0
        while start < len(segments):
            part = segments[start : start + self.largest_batch]
            # A GPU sees the sizes that it was warmed up with; to the CPU all are the same.
            size = len(part) if self.provider == CPU else next(self._sizes(len(part)))
            # The rows lie one behind the other in the memory of the other graph's input.
            audio = self._audio.reshape(-1)[: size * samples].reshape(size, samples)
            for row, segment in zip(audio, part, strict=False):
                np.multiply(segment.audio, _UNIT, out=row)
            audio[len(part) :] = 0.0
            found = self._asked(self._unpadded, {self.manifest.input.audio: audio}, size)
            logits[start : start + len(part)] = found[: len(part)]
            start += len(part)
        return logits

    def _score_padded(self, segments: Sequence[Segment]) -> Float32Array:
        for row, segment in enumerate(segments):
            piece = to_model_rate(segment.audio, segment.sample_rate_hz, self.sample_rate_hz)
            if not 1 <= len(piece) <= self.samples:
                raise ValueError(
                    f"a segment of {len(piece)} samples at {self.sample_rate_hz} Hz; "
                    f"the model takes 1 to {self.samples}"
                )
            self._audio[row, : len(piece)] = piece
            self._audio[row, len(piece) :] = 0.0
            self._length[row] = len(piece)
        return self._in_batches(self._audio[: len(segments)], self._length[: len(segments)])

    def run(self, audio: Float32Array, length: Int64Array) -> Float32Array:
        """Calibrated probabilities of each label.

        Parameters
        ----------
        audio
            float32 ``[n, samples]`` in [-1, 1] at `sample_rate_hz`, zero beyond `length`.
        length
            int64 ``[n]``, valid samples of each row, 1 to `samples`.

        Returns
        -------
        float32 ``[n, labels]``; each row sums to 1.

        Raises
        ------
        ModelError
            ``model_failed``: the runtime raised; ``model_not_finite``: NaN or infinity came out;
            ``model_signature``: the output has another shape than the manifest says.
        ValueError
            The arguments have other shapes or lengths.
        """
        rows = len(audio)
        if audio.shape != (rows, self.samples) or length.shape != (rows,):
            raise ValueError(
                f"audio must be [n, {self.samples}] and length [n], "
                f"not {audio.shape} and {length.shape}"
            )
        if rows and (length.min() < 1 or length.max() > self.samples):
            raise ValueError(f"length must be 1 to {self.samples}")
        return self._calibrated(self._in_batches(audio, length))

    def _calibrated(self, logits: np.ndarray[Any, Any]) -> Float32Array:
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if bad.size:
            raise ModelError(
                "model_not_finite",
                f"{self.identity}: NaN or infinity in {bad.size} of {len(logits)} results",
            )
        return calibrate(logits, self.manifest.calibration.temperature)

    def _in_batches(self, audio: Float32Array, length: Int64Array) -> Float32Array:
        rows = len(audio)
        logits = np.empty((rows, len(self.labels)), dtype=np.float32)
        start = 0
        for size in self._sizes(rows):
            part = slice(start, min(start + size, rows))
            logits[part] = self._logits(audio[part], length[part], size)
            start += size
        return logits

    def _sizes(self, rows: int) -> Iterator[int]:
        while rows > 0:
            within = [size for size in self.batch_sizes if size <= rows]
            beyond = [size for size in self.batch_sizes if size >= rows]
            split = within and (self.provider == CPU or not beyond)
            size = within[-1] if split else beyond[0]
            yield size
            rows -= size

    def _logits(self, audio: Float32Array, length: Int64Array, size: int) -> Float32Array:
        rows = len(audio)
        if rows < size:
            self._audio[:rows], self._audio[rows:size] = audio, 0.0
            self._length[:rows], self._length[rows:size] = length, self.samples
            audio, length = self._audio[:size], self._length[:size]
        names = self.manifest.input
        return self._asked(self._padded, {names.audio: audio, names.length: length}, size)[:rows]

    def _asked(self, graph: Runner, feed: Feed, size: int) -> Float32Array:
        # The runtime's exceptions share no base but Exception.
        try:
            logits = graph.run(feed)
        except Exception as error:
            raise ModelError("model_failed", f"{self.identity}: onnxruntime: {error}") from error
        if logits.shape != (size, len(self.labels)):
            raise ModelError(
                "model_signature",
                f"{self.identity}: labels: are {len(self.labels)}, the output of a batch of "
                f"{size} has shape {list(logits.shape)}",
            )
        return logits


class _Piece(NamedTuple):
    audio: Int16Array
    sample_rate_hz: int


def calibrate(logits: np.ndarray[Any, Any], temperature: float) -> Float32Array:
    """``softmax(logits / temperature)`` over the last axis, computed in float64."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=-1, keepdims=True)
    return scaled.astype(np.float32)
