"""A tiny emotion model, made on the spot, and manifests to go with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serd.inference.manifest import file_sha256

onnx = pytest.importorskip("onnx", reason="the train extra brings onnx, which builds the models")

SAMPLES = 8000
SAMPLE_RATE_HZ = 16000
LABELS = ("neutral", "happy", "sad", "angry")
FRAME = 160


def emotion_manifest(**changes: Any) -> dict[str, Any]:
    """A manifest that is right in everything but what `changes` replace."""
    manifest: dict[str, Any] = {
        "manifest_version": 1,
        "kind": "emotion",
        "name": "tiny",
        "version": 3,
        "file": {"path": "tiny.onnx", "sha256": "0" * 64},
        "licence": "CC0-1.0",
        "input": {
            "audio": "audio",
            "length": "length",
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "samples": SAMPLES,
        },
        "output": {"logits": "logits"},
        "labels": list(LABELS),
        "frontend": {
            "n_fft": 512,
            "win_length": 400,
            "hop_length": 160,
            "n_mels": 64,
            "fmin_hz": 50,
            "fmax_hz": 7600.0,
            "window": "hann",
            "log_floor": 1e-6,
            "mel": "slaney",
        },
        "calibration": {"method": "temperature", "temperature": 1.5, "abstain_below": 0.3},
        "training": {
            "corpora": ["noise"],
            "recipe": "none",
            "seed": 0,
            "commit": None,
            "speakers": {"train": ["noise/1"], "validation": ["noise/2"], "test": ["noise/3"]},
            "protocol": "none",
        },
        "metrics": [
            {
                "corpus": "noise",
                "protocol": "held-out speakers",
                "condition": "clean",
                "uar": 0.25,
                "accuracy": 0.25,
                "count": 4,
            }
        ],
    }
    return {**manifest, **changes}


def vad_manifest(**changes: Any) -> dict[str, Any]:
    """A manifest of a voice-activity model, right but for `changes`."""
    manifest: dict[str, Any] = {
        "manifest_version": 1,
        "kind": "vad",
        "name": "tiny-vad",
        "version": 6,
        "file": {
            "package": "tiny-vad",
            "module": "tiny_vad",
            "path": "data/tiny.onnx",
            "sha256": "0" * 64,
        },
        "licence": "MIT",
        "frame_ms": 32,
        "rates": [
            {"sample_rate_hz": 8000, "frame_samples": 256, "context_samples": 32},
            {"sample_rate_hz": 16000, "frame_samples": 512, "context_samples": 64},
        ],
        "state_shape": [2, "batch", 128],
    }
    return {**manifest, **changes}


def write(path: Path, manifest: Mapping[str, Any]) -> Path:
    """Write a manifest as JSON."""
    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return path


def build_model(
    folder: Path, *, poison: bool = False, labels: int | None = None, unpadded: bool = False
) -> Path:
    """Write ``tiny.onnx`` and ``tiny.json`` into `folder`; path of the manifest.

    With `unpadded` also ``tiny-whole.onnx``, the same network without masks, for rows of whole
    frames at the same rate.

    The network is a masked log energy of 160-sample frames through a convolution, a GRU and a
    mean over the valid frames. With `poison` a first sample above 0.5 makes the row NaN.
    """
    from onnx import TensorProto, helper

    columns = len(LABELS) if labels is None else labels
    rng = np.random.default_rng(7)
    hidden, channels, frames = 8, 6, SAMPLES // FRAME

    def weights(*shape: int) -> np.ndarray[Any, Any]:
        return rng.normal(scale=1.0 / np.sqrt(shape[-1]), size=shape).astype(np.float32)

    constants = {
        "positions": np.arange(SAMPLES, dtype=np.int64)[None],
        "starts": (np.arange(frames, dtype=np.int64) * FRAME)[None],
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
        "kernel": weights(channels, 1, FRAME),
        "floor": np.array(1e-3, np.float32),
        "gru_w": weights(1, 3 * hidden, channels) / 2,
        "gru_r": weights(1, 3 * hidden, hidden),
        "head": weights(hidden, columns),
        "half": np.array(0.5, np.float32),
        "zero": np.array([0], np.int64),
        "nan": np.array(np.nan, np.float32),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["length", "axis1"], ["until"]),
        helper.make_node("Less", ["positions", "until"], ["valid"]),
        helper.make_node("Cast", ["valid"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["audio", "mask"], ["masked"]),
        helper.make_node("Unsqueeze", ["masked", "axis1"], ["planes"]),
        helper.make_node("Conv", ["planes", "kernel"], ["filtered"], strides=[FRAME]),
        helper.make_node("Abs", ["filtered"], ["magnitude"]),
        helper.make_node("Add", ["magnitude", "floor"], ["floored"]),
        helper.make_node("Log", ["floored"], ["features"]),
        helper.make_node("Transpose", ["features"], ["in_time"], perm=[2, 0, 1]),
        helper.make_node(
            "GRU",
            ["in_time", "gru_w", "gru_r"],
            ["states", ""],
            hidden_size=hidden,
            linear_before_reset=1,
        ),
        helper.make_node("Squeeze", ["states", "axis1"], ["steps"]),
        helper.make_node("Transpose", ["steps"], ["by_row"], perm=[1, 0, 2]),
        helper.make_node("Less", ["starts", "until"], ["valid_frames"]),
        helper.make_node("Cast", ["valid_frames"], ["frame_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["frame_mask", "axis2"], ["frame_weight"]),
        helper.make_node("Mul", ["by_row", "frame_weight"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis1"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["frame_weight", "axis1"], ["count"], keepdims=0),
        helper.make_node("Div", ["total", "count"], ["pooled"]),
        helper.make_node("MatMul", ["pooled", "head"], ["scores" if poison else "logits"]),
    ]
    if poison:
        nodes += [
            helper.make_node("Gather", ["audio", "zero"], ["first"], axis=1),
            helper.make_node("Greater", ["first", "half"], ["poisoned"]),
            helper.make_node("Where", ["poisoned", "nan", "scores"], ["logits"]),
        ]
    path = folder / "tiny.onnx"
    length = helper.make_tensor_value_info("length", TensorProto.INT64, ["batch"])
    _save(path, nodes, constants, SAMPLES, columns, [length])
    changes: dict[str, Any] = {"file": _reference(path)}
    if unpadded:
        whole = folder / "tiny-whole.onnx"
        network = [node for node in nodes if node.op_type in _UNMASKED]
        network = [node for node in network if "valid" not in "".join(node.output)]
        network = [node for node in network if node.output[0] not in ("until", "frame_weight")]
        network[0].input[0] = "audio"
        mean = helper.make_node("ReduceMean", ["by_row"], ["pooled"], axes=[1], keepdims=0)
        _save(whole, [*network[:-1], mean, network[-1]], constants, "samples", columns, [])
        changes["unpadded"] = {
            "file": _reference(whole),
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "least_samples": FRAME,
        }
    return write(folder / "tiny.json", emotion_manifest(**changes))


_UNMASKED = ("Unsqueeze", "Conv", "Abs", "Add", "Log", "Transpose", "GRU", "Squeeze", "MatMul")


def _reference(path: Path) -> dict[str, str]:
    return {"path": path.name, "sha256": file_sha256(path)}


def _save(
    path: Path,
    nodes: list[Any],
    constants: Mapping[str, Any],
    samples: int | str,
    columns: int,
    others: list[Any],
) -> None:
    from onnx import TensorProto, helper, numpy_helper

    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["batch", samples]), *others],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", columns])],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def segments(rng: np.random.Generator, rows: int) -> tuple[Any, Any]:
    """Random audio float32 ``[rows, SAMPLES]``, zero beyond random lengths int64 ``[rows]``."""
    length = rng.integers(1, SAMPLES + 1, size=rows)
    loudness = rng.uniform(0.001, 0.3, size=(rows, 1))
    audio = (rng.standard_normal((rows, SAMPLES)) * loudness).clip(-1, 1).astype(np.float32)
    audio[np.arange(SAMPLES) >= length[:, None]] = 0.0
    return audio, length
