"""An emotion model on ONNX Runtime: fixed batch sizes, calibrated probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serd.errors import ModelError
from serd.inference.manifest import EmotionManifest, load_emotion_manifest, verify_file
from serd.inference.providers import CPU, Device, LiveSession, open_session
from serd.inference.signature import check_signature
from serd.types import Float32Array, Int64Array

BATCH_SIZES = (1, 2, 4, 8, 16, 32)

# Measured with serd-crnn, ms a row in batches of 1, 2, 4, 8, 16, 32: on one thread 1.63, 1.47,
# 1.47, 1.51, 1.54, 1.61; on two 1.60, 1.38, 1.21, 1.10, 1.07, 1.05. Beyond 8 there is nothing to
# win, the first row waits for the last, and 32 rows take 40 MB more memory.
_LARGEST_ON_CPU = 8


class EmotionModel:
    """Scores segments of speech. One thread at a time may call `run`.

    Parameters
    ----------
    manifest
        What the model is; `load` reads and checks it.
    live
        The open session and the provider that it really runs on.
    batch_sizes
        Batch sizes that the session ever sees, so that the memory plans and GPU kernels made
        during `warm_up` are the ones used later. On the CPU, where a run costs as much as its
        rows, other batches are split into these sizes, of which those above 8 are left out; on a
        GPU, where it costs its launches, they are filled up to the next size with silent rows.

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
    ) -> None:
        if not batch_sizes or min(batch_sizes) < 1:
            raise ValueError(f"batch sizes must be positive, not {tuple(batch_sizes)}")
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
        self._session: Any = live.session
        check_signature(manifest, self._session.get_inputs(), self._session.get_outputs())
        shape = (self.largest_batch, self.samples)
        self._audio: Float32Array = np.zeros(shape, dtype=np.float32)
        self._length: Int64Array = np.zeros(self.largest_batch, dtype=np.int64)

    @classmethod
    def load(
        cls,
        manifest_path: str | Path,
        device: Device | str = Device.AUTO,
        threads: int = 1,
        batch_sizes: Sequence[int] = BATCH_SIZES,
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
        return cls(manifest, live, batch_sizes)

    def warm_up(self) -> None:
        """Run every batch size once, on faint noise.

        Raises
        ------
        ModelError
            What `run` raises: better now than with the first caller's speech.
        """
        noise = np.random.default_rng(0).standard_normal(self.samples, dtype=np.float32) * 0.01
        for size in self.batch_sizes:
            audio = np.broadcast_to(noise, (size, self.samples))
            self.run(audio, np.full(size, self.samples, dtype=np.int64))

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
        logits = np.empty((rows, len(self.labels)), dtype=np.float64)
        start = 0
        for size in self._sizes(rows):
            part = slice(start, min(start + size, rows))
            logits[part] = self._logits(audio[part], length[part], size)
            start += size
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if bad.size:
            raise ModelError(
                "model_not_finite",
                f"{self.identity}: NaN or infinity in {bad.size} of {rows} results",
            )
        return calibrate(logits, self.manifest.calibration.temperature)

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
        self._audio[:rows] = audio
        self._length[:rows] = length
        self._audio[rows:size] = 0.0
        self._length[rows:size] = self.samples
        names = self.manifest.input
        feed = {names.audio: self._audio[:size], names.length: self._length[:size]}
        # The runtime's exceptions share no base but Exception.
        try:
            (logits,) = self._session.run([self.manifest.output.logits], feed)
        except Exception as error:
            raise ModelError("model_failed", f"{self.identity}: onnxruntime: {error}") from error
        if logits.shape != (size, len(self.labels)):
            raise ModelError(
                "model_signature",
                f"{self.identity}: labels: are {len(self.labels)}, the output of a batch of "
                f"{size} has shape {list(logits.shape)}",
            )
        result: Float32Array = logits[:rows]
        return result


def calibrate(logits: np.ndarray[Any, Any], temperature: float) -> Float32Array:
    """``softmax(logits / temperature)`` over the last axis, computed in float64."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=-1, keepdims=True)
    return scaled.astype(np.float32)
