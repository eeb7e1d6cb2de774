"""The emotion model as a program calls it that computes its features itself.

The shipped network takes raw audio and has its log-mel front end inside. Fed with librosa's
features, it is cut behind that front end: the same weights, and no features computed twice.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from serd.inference.manifest import (
    EmotionManifest,
    load_emotion_manifest,
    model_file,
    resolve_model,
)
from serd.types import Float32Array

# Where the exporter's front end hands over: features [batch, mels, frames], frames of each row.
_FEATURES = "/frontend/Div_6_output_0"
_FRAMES = "/frontend/Clip_1_output_0"


def shipped_manifest() -> EmotionManifest:
    """Of the model that the daemon runs by default."""
    return load_emotion_manifest(resolve_model("serd-crnn"))


def cut_network(manifest: EmotionManifest, target: Path) -> None:
    """Write the network behind the front end to `target`.

    Raises
    ------
    RuntimeError
        The graph has no such front end.
    """
    onnx: Any = importlib.import_module("onnx")
    source = model_file(manifest)
    made = {name for node in onnx.load(source).graph.node for name in node.output}
    missing = {_FEATURES, _FRAMES} - made
    if missing:
        raise RuntimeError(f"{source.name}: nothing makes {', '.join(sorted(missing))}")
    onnx.utils.extract_model(
        str(source), str(target), [_FEATURES, _FRAMES], [manifest.output.logits]
    )


class Judge:
    """librosa's log-mel of a segment, then one call of onnxruntime.

    Parameters
    ----------
    network
        What `cut_network` wrote. The session is shared by all threads, as onnxruntime allows.

    Attributes
    ----------
    features_s, network_s
        Processor time of the calling threads in the two halves.
    """

    def __init__(self, network: Path, manifest: EmotionManifest) -> None:
        runtime: Any = importlib.import_module("onnxruntime")
        self._librosa: Any = importlib.import_module("librosa")
        options = runtime.SessionOptions()
        # One thread a call: with onnxruntime's default its threads wait for work by spinning, and
        # a program with many threads of its own would hold no more than a few streams.
        options.intra_op_num_threads = 1
        self._session: Any = runtime.InferenceSession(
            str(network), options, providers=["CPUExecutionProvider"]
        )
        assert manifest.frontend is not None, "the shipped manifest describes its front end"
        self._frontend = manifest.frontend
        self._rate_hz = manifest.input.sample_rate_hz
        self._temperature = manifest.calibration.temperature
        self.labels = manifest.labels
        self.features_s = 0.0
        self.network_s = 0.0

    def features(self, audio: Float32Array, rate_hz: int) -> Float32Array:
        """Normalised log-mel, float32 ``[mels, frames]``, of audio in [-1, 1]."""
        if rate_hz != self._rate_hz:
            audio = self._librosa.resample(audio, orig_sr=rate_hz, target_sr=self._rate_hz)
        settings = self._frontend
        mel = self._librosa.feature.melspectrogram(
            y=audio / np.sqrt(np.mean(audio**2) + 1e-12),
            sr=self._rate_hz,
            n_fft=settings.n_fft,
            win_length=settings.win_length,
            hop_length=settings.hop_length,
            window=settings.window,
            center=False,
            n_mels=settings.n_mels,
            fmin=settings.fmin_hz,
            fmax=settings.fmax_hz,
        )
        log = np.log(mel + settings.log_floor)
        log -= log.mean()
        normalised: Float32Array = (log / np.sqrt(np.mean(log**2) + 1e-12)).astype(np.float32)
        return normalised

    def scores(self, audio: Float32Array, rate_hz: int) -> Float32Array:
        """Probability of each label, float32 ``[labels]``."""
        began = time.thread_time()
        features = self.features(audio, rate_hz)
        between = time.thread_time()
        frames = np.array([features.shape[1]], np.int64)
        (logits,) = self._session.run(None, {_FEATURES: features[None], _FRAMES: frames})
        self.features_s += between - began
        self.network_s += time.thread_time() - between
        scaled = np.exp((logits[0] - logits[0].max()) / self._temperature)
        probability: Float32Array = scaled / scaled.sum()
        return probability

    def warm_up(self) -> None:
        """Have librosa and the runtime do once what the first call would otherwise wait for."""
        noise = np.random.default_rng(0).standard_normal(3 * 8000, np.float32) * np.float32(0.01)
        self.scores(noise, 8000)
        self.features_s = self.network_s = 0.0
