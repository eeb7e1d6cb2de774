"""From a trained run to what the daemon loads: ONNX file, manifest, model card."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from serd.inference.manifest import EmotionManifest
from trainer.audio import SAMPLE_RATE_HZ, WINDOW_SAMPLES, Float32
from trainer.card import model_card
from trainer.corpora.base import LABELS
from trainer.errors import TrainerError
from trainer.evaluate import Predictor, Segments, torch_predictor
from trainer.metrics import Int64
from trainer.models import Crnn
from trainer.recipe import Recipe
from trainer.report import Report

OPSET = 17
PARITY_TOLERANCE = 1e-4
PROTOCOL = "speaker-disjoint: named speakers held out of training and of model selection"


@dataclass(frozen=True, slots=True)
class Exported:
    """Files written, and the largest difference of logits between ONNX and PyTorch."""

    onnx: Path
    manifest: Path
    card: Path
    parity: float


def write_onnx(model: Crnn, path: Path) -> None:
    """Export with a dynamic batch axis and a fixed number of samples."""
    example = (
        torch.zeros(2, WINDOW_SAMPLES),
        torch.tensor([WINDOW_SAMPLES, WINDOW_SAMPLES // 2]),
    )
    with warnings.catch_warnings():
        # The tracing exporter is deprecated, but its successor needs onnxscript and writes
        # a larger graph; the GRU it warns of takes its batch size from the input here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            example,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["audio", "length"],
            output_names=["logits"],
            dynamic_axes={"audio": {0: "batch"}, "length": {0: "batch"}, "logits": {0: "batch"}},
        )
    onnx.checker.check_model(onnx.load(path), full_check=True)


def onnx_predictor(path: Path, threads: int = 1) -> Predictor:
    """An exported model as a predictor, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def predict(audio: Float32, length: Int64) -> Float32:
        (logits,) = session.run(["logits"], {"audio": audio, "length": length})
        return np.asarray(logits, np.float32)

    return predict


def parity(model: Crnn, path: Path, segments: Segments) -> float:
    """Largest difference of logits between PyTorch and ONNX, alone and in batches.

    Raises
    ------
    TrainerError
        it is above the tolerance.
    """
    ours, theirs = torch_predictor(model.eval()), onnx_predictor(path)
    worst = 0.0
    rows = min(64, len(segments.length))
    audio, length = segments.audio[:rows], segments.length[:rows]
    expected = ours(audio, length)
    for batch in (1, 7, rows):
        for first in range(0, rows, batch):
            part = slice(first, first + batch)
            found = theirs(audio[part], length[part])
            worst = max(worst, float(np.abs(found - expected[part]).max()))
    if not worst <= PARITY_TOLERANCE:
        raise TrainerError(
            f"{path}: ONNX and PyTorch differ by {worst:.2g} in the logits, "
            f"more than {PARITY_TOLERANCE:g}; nothing was exported."
        )
    return worst


def build_manifest(
    recipe: Recipe,
    report: Report,
    onnx_path: Path,
    version: int,
    speakers: dict[str, list[str]],
) -> dict[str, object]:
    """The manifest's content.

    Raises
    ------
    TrainerError
        serd's own check refuses it.
    """
    frontend = recipe.frontend
    manifest: dict[str, object] = {
        "manifest_version": 1,
        "kind": "emotion",
        "name": recipe.name,
        "version": version,
        "file": {
            "path": f"{recipe.name}.onnx",
            "sha256": hashlib.sha256(onnx_path.read_bytes()).hexdigest(),
        },
        "licence": "CC-BY-NC-SA-4.0",
        "input": {
            "audio": "audio",
            "length": "length",
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "samples": WINDOW_SAMPLES,
        },
        "output": {"logits": "logits"},
        "labels": list(LABELS),
        "frontend": {
            "n_fft": frontend.n_fft,
            "win_length": frontend.n_fft,
            "hop_length": frontend.hop_length,
            "n_mels": frontend.n_mels,
            "fmin_hz": frontend.fmin_hz,
            "fmax_hz": frontend.fmax_hz,
            "window": "hann",
            "log_floor": frontend.log_floor,
            "mel": "slaney",
        },
        "calibration": {
            "method": "temperature",
            "temperature": report.temperature,
            "abstain_below": report.abstain_below,
        },
        "training": {
            "corpora": list(recipe.corpora),
            "recipe": recipe.name,
            "seed": recipe.seed,
            "commit": None,
            "speakers": speakers,
            "protocol": PROTOCOL,
        },
        "metrics": [
            {
                "corpus": figure.corpus,
                "protocol": "held-out speakers",
                "condition": figure.condition,
                "uar": round(figure.uar, 4),
                "accuracy": round(figure.accuracy, 4),
                "count": figure.count,
            }
            for figure in report.part("test")
        ],
    }
    try:
        EmotionManifest.model_validate_json(json.dumps(manifest))
    except ValueError as error:
        raise TrainerError(f"serd refuses the manifest: {error}") from None
    return manifest


def export(
    model: Crnn,
    recipe: Recipe,
    report: Report,
    segments: Segments,
    speakers: dict[str, list[str]],
    folder: Path,
    version: int = 1,
    note: str = "",
) -> Exported:
    """Write `NAME.onnx`, `NAME.json` and `NAME.md` to `folder`, replacing what is there.

    Nothing is replaced unless the ONNX file agrees with PyTorch on `segments`.

    Parameters
    ----------
    segments
        real audio for the parity check.
    note
        a paragraph for the card.

    Raises
    ------
    TrainerError
        parity fails, there are no test figures, or the folder cannot be written.
    """
    if not report.part("test"):
        raise TrainerError("The report has no test figures: run `evaluate RUN --test` first.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            part = Path(scratch) / f"{recipe.name}.onnx"
            write_onnx(model, part)
            worst = parity(model, part, segments)
            manifest = build_manifest(recipe, report, part, version, speakers)
            card = model_card(recipe, report, manifest, part, worst, note)
            texts = {
                ".json": json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
                ".md": card,
            }
            for suffix, text in texts.items():
                (Path(scratch) / f"{recipe.name}{suffix}").write_text(text, "utf-8")
            written = {}
            for suffix in (".onnx", ".json", ".md"):
                name = f"{recipe.name}{suffix}"
                (Path(scratch) / name).replace(folder / name)
                written[suffix] = folder / name
    except OSError as error:
        raise TrainerError(f"{folder} cannot be written: {error.strerror}.") from None
    return Exported(written[".onnx"], written[".json"], written[".md"], worst)
