"""silero's voice activity network (https://github.com/snakers4/silero-vad) over rows.

The network sees a frame of 32 ms with the last 4 ms of the frame before it as context and keeps
the state of an LSTM. Microseconds a frame of the model call on one core, by size of the batch:

    rows       1    8   32  128  512
    8 kHz     63   26   23   21   20
    16 kHz    87   41   35   34   34

So batches run as they come: padding them to powers of two makes mixed sizes a fifth slower. Inputs
and outputs bound ahead of the call save a tenth up to 8 rows and under 5 % beyond, but a binding
holds for one size of the batch, and binding at every call saves nothing.

The LSTM remembers what came before a pause: in a telephone hour of short recordings with pauses,
an undisturbed state finds 89 % of the frames that a fresh one calls speech, from the first minutes
on. With a reset after 1 s of silence it finds 98 to 99 %, and no reset lifted the probability of
the frames behind it above 0.14. So a row's state is set to zero whenever its probability has
stayed below `silence_below` for `reset_after_silence_ms`, again and again while silence lasts.

A line that is switched off, muted or suppressed gives digital silence, which real speech never
does. The state that the LSTM drifts to in it makes of the faint noise that follows "speech" of a
probability above 0.8 for a second (after 30 frames of zeros; 0.2 after 10). So from 8 empty frames
on the state is held at zero.

The context is kept, since it is audio: the signal does not jump. Both rules count frames of the
row alone. The first never resets inside an utterance as long as `reset_after_silence_ms` exceeds
the segmenter's hangover and `silence_below` is at most its offset threshold.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from serd.errors import ModelError
from serd.inference.manifest import load_vad_manifest, resolve_model
from serd.inference.schema import VadManifest
from serd.types import FRAME_MS, Float32Array, Int16Array, Int64Array
from serd.vad.network import NetworkDetector, open_network

RESET_AFTER_SILENCE_MS = 1000.0
SILENCE_BELOW = 0.2
"""Defaults of the reset rule, see `SileroDetector`."""

# Codecs' own silence: 0 in µ-law, 8 either way in A-law.
_EMPTY_PEAK = 8
_EMPTY_FRAMES = 8


class SileroDetector(NetworkDetector):
    """silero's network as a `serd.vad.detector.Detector`.

    Parameters
    ----------
    session, manifest, sample_rate_hz, rows
        See `NetworkDetector`.
    reset_after_silence_ms, silence_below
        Time for which the probability must stay below a value before the state is reset.
    """

    def __init__(
        self,
        session: Any,
        manifest: VadManifest,
        sample_rate_hz: int,
        rows: int,
        reset_after_silence_ms: float = RESET_AFTER_SILENCE_MS,
        silence_below: float = SILENCE_BELOW,
    ) -> None:
        super().__init__(session, manifest, sample_rate_hz, rows)
        self.name = "silero"
        self._quiet_frames = np.zeros(rows, np.int64)
        self._empty_frames = np.zeros(rows, np.int64)
        self._reset_frames = math.ceil(reset_after_silence_ms / FRAME_MS)
        self._silence_below = silence_below

    @classmethod
    def load(
        cls,
        sample_rate_hz: int,
        rows: int,
        threads: int = 1,
        reset_after_silence_ms: float = RESET_AFTER_SILENCE_MS,
        silence_below: float = SILENCE_BELOW,
    ) -> Self:
        """Open the network that its package brings.

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
            session = open_network(manifest, threads)
        except ModelError as error:
            if error.code != "model_package_missing":
                raise
            raise ModelError(
                "vad_model_missing",
                f"silero's network is not installed ({manifest.file.package}): "
                'pip install "serd[silero]", or set vad.detector = "serd-vad"',
            ) from error
        return cls(session, manifest, sample_rate_hz, rows, reset_after_silence_ms, silence_below)

    def step(self, rows: Int64Array, frames: Int16Array) -> Float32Array:
        """See `Detector.step`."""
        probability = super().step(rows, frames)
        if len(rows) == 0:
            return probability

        quiet = self._quiet_frames[rows] + 1
        quiet[probability >= self._silence_below] = 0
        over = quiet >= self._reset_frames
        if over.any():
            self._state[:, rows[over]] = 0
            quiet[over] = 0
        self._quiet_frames[rows] = quiet

        empty = self._empty_frames[rows] + 1
        empty[(frames.max(axis=1) > _EMPTY_PEAK) | (frames.min(axis=1) < -_EMPTY_PEAK)] = 0
        self._empty_frames[rows] = empty
        stuck = empty >= _EMPTY_FRAMES
        if stuck.any():
            self._state[:, rows[stuck]] = 0
        return probability

    def reset(self, rows: Int64Array) -> None:
        """See `Detector.reset`."""
        super().reset(rows)
        self._quiet_frames[rows] = 0
        self._empty_frames[rows] = 0
