"""From a trained run to what the daemon loads: ONNX file, manifest, model card."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serd.inference.manifest import EmotionManifest
from trainer.audio import SAMPLE_RATE_HZ, WINDOW_SAMPLES, load_clips
from trainer.card import model_card
from trainer.corpora import REGISTRY
from trainer.corpora.base import Utterance
from trainer.errors import TrainerError
from trainer.evaluate import Segments, cut_segments, torch_predictor
from trainer.features import LogMelSettings
from trainer.graph import largest_difference, onnx_predictor, write_onnx
from trainer.halves import store_halves
from trainer.licence import Licence, licence_of
from trainer.models import BackboneSettings, EmotionModel
from trainer.origin import Origin
from trainer.protocol_settings import describe
from trainer.quantise import append_scaling
from trainer.recipe import Recipe
from trainer.unpadded.graph import has_form
from trainer.unpadded.narrowband import SAMPLE_RATE_HZ as NARROW_RATE_HZ
from trainer.variants import Variant, try_fp16, try_int8, try_unpadded

PARITY_TOLERANCE = 1e-4
PARITY_ROWS = 48
HEARD_UTTERANCES = 600

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Exported:
    """Files written.

    Attributes
    ----------
    parity
        largest difference of logits between ONNX and PyTorch; None for what is not of PyTorch.
    variants
        int8 and float16, as far as asked for: made, or given up for a reason.
    """

    onnx: Path
    manifest: Path
    card: Path
    parity: float | None
    variants: tuple[Variant, ...]


def hear(origin: Origin, cache: Path | None = None, most: int = HEARD_UTTERANCES) -> Segments:
    """Segments of recordings that the model was tested on, evenly over all of them.

    Raises
    ------
    TrainerError
        not one of them can be read any more.
    """
    heard = origin.heard
    chosen = range(0, len(heard), -(-len(heard) // most))
    utterances = [
        Utterance(
            path=Path(str(heard.path[i])),
            corpus=str(heard.corpus[i]),
            speaker=str(heard.speaker[i]),
            label=heard.labels[heard.truth[i]],
            language=str(heard.language[i]),
        )
        for i in chosen
    ]
    clips = load_clips(utterances, cache, prepare=origin.recipe.prepare)
    return cut_segments(clips, range(len(clips)), "clean", heard.labels)


def export(
    origin: Origin,
    segments: Segments,
    folder: Path,
    name: str = "",
    version: int = 1,
    note: str = "",
    int8: bool = False,
    fp16: bool = False,
) -> Exported:
    """Write `NAME.onnx`, `NAME.json` and `NAME.md` to `folder`, replacing what is there.

    Nothing is replaced unless the ONNX file agrees with PyTorch on `segments`.

    Parameters
    ----------
    segments
        real audio, see `hear`.
    name
        of the model and its files; default: the recipe's.
    note
        a paragraph for the card.
    int8, fp16
        also `NAME-int8` and `NAME-fp16`, each with a manifest, where they are worth having.

    Raises
    ------
    TrainerError
        the name cannot be a model's, the graphs differ, serd refuses the manifest, or the folder
        cannot be written.
    """
    name = name or origin.recipe.name
    if not _NAME.fullmatch(name):
        raise TrainerError(
            f"{name!r} cannot be a model's name: it must begin with a small letter or digit, and "
            "hold only those and . _ -"
        )
    licence = _licence(origin)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = Path(scratch) / f"{name}.onnx"
            worst = _write(origin, segments, path)
            wanted = [try_int8] * int8 + [try_fp16] * fp16
            variants = [attempt(path, segments, len(origin.labels)) for attempt in wanted]
            graphs = [path, *(v.path for v in variants if v.path is not None)]
            unpadded = _write_unpadded(origin, segments, path, graphs)
            lean = {graph: v.path for graph, v in unpadded.items() if v.path is not None}
            if origin.calibration.scaling.method == "vector":
                for graph in (*graphs, *lean.values()):
                    append_scaling(graph, origin.calibration.scaling)
            manifests = [
                build_manifest(origin, licence, graph, version, lean.get(graph)) for graph in graphs
            ]
            for graph, manifest in zip(graphs, manifests, strict=True):
                text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
                graph.with_suffix(".json").write_text(text, "utf-8")
            card = model_card(
                origin, manifests[0], licence, path, worst, [*unpadded.values(), *variants], note
            )
            path.with_suffix(".md").write_text(card, "utf-8")
            _replace(Path(scratch), folder, name)
    except OSError as error:
        raise TrainerError(f"{folder} cannot be written: {error.strerror}.") from None
    return Exported(
        onnx=folder / f"{name}.onnx",
        manifest=folder / f"{name}.json",
        card=folder / f"{name}.md",
        parity=worst,
        variants=tuple(v.moved(folder) for v in variants),
    )


def _replace(scratch: Path, folder: Path, name: str) -> None:
    """Move all files into the folder; variants of an earlier export go."""
    made = {path.name for path in scratch.iterdir()}
    for path in sorted(scratch.iterdir()):
        path.replace(folder / path.name)
    for kind in ("int8", "fp16", "8k", "int8-8k"):
        for suffix in (".onnx", ".json"):
            if f"{name}-{kind}{suffix}" not in made:
                (folder / f"{name}-{kind}{suffix}").unlink(missing_ok=True)


def _write_unpadded(
    origin: Origin, segments: Segments, path: Path, graphs: Sequence[Path]
) -> dict[Path, Variant]:
    """The graph without padding that goes with `path`, and with its int8 form among `graphs`."""
    if not (isinstance(origin.model, EmotionModel) and has_form(origin.model)):
        return {}
    made = {path: try_unpadded(origin.model, path, segments)}
    narrow = made[path].path
    int8 = path.with_name(f"{path.stem}-int8.onnx")
    if narrow is not None and int8 in graphs:
        made[int8] = try_int8(narrow, segments, len(origin.labels), narrow=True)
    return made


def _write(origin: Origin, segments: Segments, path: Path) -> float | None:
    """Write the graph; its largest difference from PyTorch."""
    if not isinstance(origin.model, EmotionModel):
        onnx_predictor(origin.model)
        shutil.copyfile(origin.model, path)
        return None
    write_onnx(origin.model, path)
    store_halves(path)
    return check_parity(origin.model, path, segments)


def check_parity(model: EmotionModel, path: Path, segments: Segments) -> float:
    """Largest difference of logits between PyTorch and ONNX, alone and in batches.

    Raises
    ------
    TrainerError
        it is above the tolerance.
    """
    step = max(1, len(segments.length) // PARITY_ROWS)
    worst = largest_difference(
        torch_predictor(model.eval()),
        onnx_predictor(path),
        segments.audio[::step],
        segments.length[::step],
    )
    if not worst <= PARITY_TOLERANCE:
        raise TrainerError(
            f"{path.name}: ONNX and PyTorch differ by {worst:.2g} in the logits, "
            f"more than {PARITY_TOLERANCE:g}; nothing was exported."
        )
    return worst


def _licence(origin: Origin) -> Licence:
    licences: dict[str, str | None] = {}
    for name in trained_on(origin):
        corpus = REGISTRY.get(origin.recipe.corpora[name].loader or name)
        licences[name] = None if corpus is None else corpus.licence
    return licence_of(licences)


def trained_on(origin: Origin) -> list[str]:
    """The corpora whose speakers trained, in the recipe's order."""
    there = {who.split("/")[0] for who in origin.speakers["train"]}
    return [name for name in origin.recipe.corpora if name in there]


def frontend_section(recipe: Recipe) -> dict[str, object] | None:
    """The manifest's section of a log-mel front end; others are told by the card alone."""
    settings = recipe.frontend
    if not isinstance(settings, LogMelSettings) or isinstance(recipe.model, BackboneSettings):
        return None
    return {
        "n_fft": settings.n_fft,
        "win_length": settings.n_fft,
        "hop_length": settings.hop_length,
        "n_mels": settings.n_mels,
        "fmin_hz": settings.fmin_hz,
        "fmax_hz": settings.fmax_hz,
        "window": "hann",
        "log_floor": settings.log_floor,
        "mel": "slaney",
    }


def build_manifest(
    origin: Origin, licence: Licence, onnx_path: Path, version: int, unpadded: Path | None = None
) -> dict[str, Any]:
    """The manifest's content; the model is called as the file is.

    `unpadded` is its graph for 8 kHz rows without padding.

    Raises
    ------
    TrainerError
        serd's own check refuses it.
    """
    manifest: dict[str, Any] = {
        "manifest_version": 1,
        "kind": "emotion",
        "name": onnx_path.stem,
        "version": version,
        "file": _reference(onnx_path),
        "licence": licence.name,
        "input": {
            "audio": "audio",
            "length": "length",
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "samples": WINDOW_SAMPLES,
        },
        "output": {"logits": "logits"},
        "labels": list(origin.labels),
        "frontend": frontend_section(origin.recipe),
        "calibration": {
            "method": "temperature",
            "temperature": round(origin.calibration.scaling.temperature, 4),
            "abstain_below": origin.calibration.abstain_below,
        },
        "training": {
            "corpora": trained_on(origin),
            "recipe": origin.recipe.name,
            "seed": origin.recipe.seed,
            "commit": None,
            "speakers": origin.speakers,
            "protocol": _protocol(origin),
        },
        "metrics": _metrics(origin),
    }
    if unpadded is not None and isinstance(origin.model, EmotionModel):
        manifest["unpadded"] = {
            "file": _reference(unpadded),
            "sample_rate_hz": NARROW_RATE_HZ,
            # A frame of the front end.
            "least_samples": origin.model.frontend.n_fft // 2,
        }
    try:
        EmotionManifest.model_validate_json(json.dumps(manifest))
    except ValueError as error:
        raise TrainerError(f"serd refuses the manifest: {error}") from None
    return manifest


def _reference(path: Path) -> dict[str, str]:
    return {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _protocol(origin: Origin) -> str:
    text = describe(origin.protocol)
    if origin.stands_for_folds:
        names = ", ".join(entry.protocol for entry in origin.entries)
        text += f"; figures are of models of the same recipe by {names}"
    return text


def _metrics(origin: Origin) -> list[dict[str, object]]:
    return [
        {
            "corpus": row.name,
            "protocol": entry.description,
            "condition": row.condition,
            "uar": round(row.uar.value, 4),
            "accuracy": round(row.accuracy.value, 4),
            "count": row.count,
        }
        for entry in origin.entries
        for condition in ("clean", "telephone-mulaw-8k", "whole-file")
        for row in entry.select(condition, group="corpus")
        if row.uar.value is not None and row.accuracy.value is not None
    ]
