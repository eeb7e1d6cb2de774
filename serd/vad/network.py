"""A voice-activity network over rows: one call of onnxruntime for all that are ready.

The network sees a frame of 32 ms with the last samples of the frame before it (the context), and
has a state. Both are kept per row and handed on from frame to frame. A row's probabilities are
the same to the bit in any batch.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from serd.errors import ModelError
from serd.inference.manifest import verify_file
from serd.inference.providers import Device, open_session
from serd.inference.schema import VadManifest
from serd.types import Float32Array, Int16Array, Int64Array

_SCALE = np.float32(1 / 32768)


class NetworkDetector:
    """A network of kind ``vad`` as a `serd.vad.detector.Detector`.

    Parameters
    ----------
    session
        onnxruntime session, on the CPU, of a graph with the inputs ``input`` (float32 [batch,
        context + frame]), ``state`` and ``sr`` (int64, the rate), and the outputs probability
        (float32 [batch, 1]) and next state.
    manifest
        What the graph takes.
    sample_rate_hz
        8000 or 16000.
    rows
        How many rows there are.

    Raises
    ------
    ModelError
        ``manifest_value``: the manifest has no such rate, or its state's second axis is not the
        batch.
    """

    def __init__(self, session: Any, manifest: VadManifest, sample_rate_hz: int, rows: int) -> None:
        rate = manifest.rate(sample_rate_hz)
        if manifest.state_shape[1] != "batch":
            raise ModelError(
                "manifest_value", f"{manifest.where}: state_shape: the second axis must be 'batch'"
            )
        self.name = manifest.name
        self.sample_rate_hz = sample_rate_hz
        self.frame_samples = rate.frame_samples
        self.compute_ns = 0
        self.gated = 0
        self._session = session
        self._rate = np.array(sample_rate_hz, np.int64)
        self._context = np.zeros((rows, rate.context_samples), np.float32)
        shape = [rows if isinstance(size, str) else size for size in manifest.state_shape]
        self._state = np.zeros(shape, np.float32)
        self._input = np.zeros((rows, rate.context_samples + rate.frame_samples), np.float32)

    def step(self, rows: Int64Array, frames: Int16Array) -> Float32Array:
        """See `Detector.step`."""
        count = len(rows)
        if count == 0:
            return np.empty(0, np.float32)
        context = self._context.shape[1]
        audio = self._input[:count]
        audio[:, :context] = self._context[rows]
        np.multiply(frames, _SCALE, out=audio[:, context:])
        feeds = {"input": audio, "state": self._state.take(rows, axis=1), "sr": self._rate}
        began = time.thread_time_ns()
        output, state = self._session.run(None, feeds)
        self.compute_ns += time.thread_time_ns() - began
        self._context[rows] = audio[:, -context:]
        self._state[:, rows] = state
        probability: Float32Array = output[:, 0]
        return probability

    def reset(self, rows: Int64Array) -> None:
        """See `Detector.reset`."""
        self._context[rows] = 0
        self._state[:, rows] = 0


def open_network(manifest: VadManifest, threads: int) -> Any:
    """onnxruntime session of a manifest's graph, on the CPU with so many threads.

    Raises
    ------
    ModelError
        The file is missing or not the one that the manifest names.
    DeviceError
        onnxruntime is missing or installed twice.
    """
    return open_session(verify_file(manifest), Device.CPU, threads).session
