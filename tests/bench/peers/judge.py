"""The emotion model as a program calls it that computes its features itself.

The shipped network takes raw audio and has its log-mel front end inside. Fed with librosa's
features, it is cut behind that front end: the same weights, and no features computed twice. It is
the graph for rows without padding that is cut, as such a program pads nothing.
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
    resolve_model,
    verify_unpadded_file,
)
from serd.types import Float32Array

# Where the exporter's front end hands over: features [batch, frames, bands].
_FEATURES = "/Div_4_output_0"

# Whisper's features, of which the network hears the lowest bands.
_N_FFT, _HOP, _MELS, _BANDS = 400, 160, 80, 62
_RATE_HZ = 16_000


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
    source = verify_unpadded_file(manifest)
    if source is None:
        raise RuntimeError(f"{manifest.name} has no graph without padding")
    made = {name for node in onnx.load(source).graph.node for name in node.output}
    if _FEATURES not in made:
        raise RuntimeError(f"{source.name}: nothing makes {_FEATURES}")
    onnx.utils.extract_model(str(source), str(target), [_FEATURES], [manifest.output.logits])


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
        self._temperature = manifest.calibration.temperature
        self.labels = manifest.labels
        self.features_s = 0.0
        self.network_s = 0.0

    def features(self, audio: Float32Array, rate_hz: int) -> Float32Array:
        """Log-mel as Whisper scales it, float32 ``[frames, bands]``, of audio in [-1, 1]."""
        if rate_hz != _RATE_HZ:
            audio = self._librosa.resample(audio, orig_sr=rate_hz, target_sr=_RATE_HZ)
        half = _N_FFT // 2
        around = np.pad(np.pad(audio, (half, 0), mode="reflect"), (0, half))
        mel = self._librosa.feature.melspectrogram(
            y=around, sr=_RATE_HZ, n_fft=_N_FFT, hop_length=_HOP, center=False, n_mels=_MELS
        )
        level = np.log10(np.maximum(mel[:_BANDS, : len(audio) // _HOP], 1e-10))
        scaled = (np.maximum(level, level.max() - 8.0) + 4.0) / 4.0
        return np.ascontiguousarray(scaled.T, np.float32)

    def scores(self, audio: Float32Array, rate_hz: int) -> Float32Array:
        """Probability of each label, float32 ``[labels]``."""
        began = time.thread_time()
        features = self.features(audio, rate_hz)
        between = time.thread_time()
        (logits,) = self._session.run(None, {_FEATURES: features[None]})
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
