"""From a trained network to what the daemon loads: ONNX file, manifest, model card."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from serd.inference.schema import VadManifest
from serd.types import FRAME_MS, frame_samples
from serd.vad.network import NetworkDetector
from trainer.errors import TrainerError
from trainer.pcm import Float32, Int16
from trainer.vad.card import vad_card
from trainer.vad.frontend import context_samples
from trainer.vad.graph import build_graph
from trainer.vad.network import RATES_HZ, Network
from trainer.vad.scoring import Listener, Score
from trainer.vad.settings import VadRecipe
from trainer.vad.training import torch_listener

PARITY_TOLERANCE = 1e-4
LICENCE = "CC-BY-NC-SA-4.0"


@dataclass(frozen=True, slots=True)
class Exported:
    """Files written, and the largest difference of probabilities between ONNX and PyTorch."""

    onnx: Path
    manifest: Path
    card: Path
    parity: float


def streamed(manifest: VadManifest, graph: bytes) -> Listener:
    """An exported graph as a detector of whole recordings, frame by frame as in the daemon."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def listen(samples: Int16, rate_hz: int) -> Float32:
        detector = NetworkDetector(session, manifest, rate_hz, len(samples))
        return detect(detector, samples)

    return listen


def detect(detector: NetworkDetector, samples: Int16) -> Float32:
    """Probabilities of int16 [recordings, samples], each a row: float32 [recordings, frames]."""
    rows = np.arange(len(samples))
    size = detector.frame_samples
    detector.reset(rows)
    frames = [
        detector.step(rows, samples[:, start : start + size])
        for start in range(0, samples.shape[1] - size + 1, size)
    ]
    return np.stack(frames, axis=1) if frames else np.zeros((len(samples), 0), np.float32)


def parity(network: Network, listen: Listener, recordings: Sequence[tuple[int, Int16]]) -> float:
    """Largest difference of probabilities between PyTorch on whole recordings and the graph frame
    by frame, alone and in a batch.

    Raises
    ------
    TrainerError
        it is above the tolerance.
    """
    ours = torch_listener(network)
    worst = 0.0
    for rate_hz, samples in recordings:
        expected = ours(samples, rate_hz)
        for part in (slice(None), slice(0, 1)):
            found = listen(samples[part], rate_hz)
            worst = max(worst, float(np.abs(found - expected[part]).max()))
    if not worst <= PARITY_TOLERANCE:
        raise TrainerError(
            f"ONNX and PyTorch differ by {worst:.2g} in the probabilities, "
            f"more than {PARITY_TOLERANCE:g}; nothing was exported."
        )
    return worst


def build_manifest(recipe: VadRecipe, graph: bytes, version: int) -> dict[str, object]:
    """The manifest's content."""
    network = recipe.network
    return {
        "manifest_version": 1,
        "kind": "vad",
        "name": recipe.name,
        "version": version,
        "file": {"path": f"{recipe.name}.onnx", "sha256": hashlib.sha256(graph).hexdigest()},
        "licence": LICENCE,
        "frame_ms": FRAME_MS,
        "rates": [
            {
                "sample_rate_hz": rate_hz,
                "frame_samples": frame_samples(rate_hz),
                "context_samples": context_samples(rate_hz),
            }
            for rate_hz in RATES_HZ
        ],
        "state_shape": [network.layers, "batch", network.hidden],
    }


def export(
    network: Network,
    recipe: VadRecipe,
    recordings: Sequence[tuple[int, Int16]],
    scores: Callable[[Listener], Sequence[Score]],
    folder: Path,
    version: int = 1,
    note: str = "",
) -> Exported:
    """Write `NAME.onnx`, `NAME.json` and `NAME.md` to `folder`, replacing what is there.

    Nothing is replaced unless the ONNX file agrees with PyTorch on `recordings`.

    Parameters
    ----------
    recordings
        rate and int16 [recordings, samples] for the parity check.
    scores
        makes the card's figures of the exported model.
    note
        a paragraph for the card.

    Raises
    ------
    TrainerError
        parity fails, serd refuses the manifest, or the folder cannot be written.
    """
    graph = build_graph(network).SerializeToString()
    content = build_manifest(recipe, graph, version)
    try:
        manifest = VadManifest.model_validate_json(json.dumps(content))
    except ValueError as error:
        raise TrainerError(f"serd refuses the manifest: {error}") from None
    listen = streamed(manifest, graph)
    worst = parity(network, listen, recordings)
    texts: dict[str, bytes] = {
        ".onnx": graph,
        ".json": (json.dumps(content, indent=2) + "\n").encode(),
        ".md": vad_card(recipe, content, len(graph), worst, scores(listen), note).encode(),
    }
    written: dict[str, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            for suffix, text in texts.items():
                (Path(scratch) / f"{recipe.name}{suffix}").write_bytes(text)
            for suffix in texts:
                name = f"{recipe.name}{suffix}"
                written[suffix] = (Path(scratch) / name).replace(folder / name)
    except OSError as error:
        raise TrainerError(f"{folder} cannot be written: {error.strerror}.") from None
    return Exported(written[".onnx"], written[".json"], written[".md"], worst)
