"""The model card: what a model is, what it was trained on, what its figures mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainer.corpora import get
from trainer.corpora.base import LABELS
from trainer.recipe import Recipe
from trainer.report import Figure, Report
from trainer.splits import PARTS


def _figures(figures: list[Figure]) -> list[str]:
    far = {f.corpus: f for f in figures if f.condition != "clean"}
    lines = [
        "| corpus | utterances | UAR | 95 % interval | accuracy | UAR, 8 kHz µ-law | loss |",
        "|---|---|---|---|---|---|---|",
    ]
    clean = [f for f in figures if f.condition == "clean"]
    for f in clean:
        distant = far[f.corpus]
        lines.append(
            f"| {f.corpus} | {f.count} | {f.uar:.4f} | {f.interval[0]:.3f} to "
            f"{f.interval[1]:.3f} | {f.accuracy:.4f} | {distant.uar:.4f} | "
            f"{100 * (f.uar - distant.uar):+.1f} points |"
        )
    if clean:
        near_mean = float(np.mean([f.uar for f in clean]))
        far_mean = float(np.mean([f.uar for f in far.values()]))
        lines.append(
            f"| mean over corpora | | {near_mean:.4f} | | | {far_mean:.4f} | "
            f"{100 * (near_mean - far_mean):+.1f} points |"
        )
    return lines


def _confusion(figures: list[Figure]) -> list[str]:
    total = np.sum([f.confusion for f in figures if f.condition == "clean"], axis=0)
    lines = [
        "| truth \\ said | " + " | ".join(LABELS) + " |",
        "|---" * (len(LABELS) + 1) + "|",
    ]
    for label, row in zip(LABELS, total, strict=True):
        lines.append(f"| {label} | " + " | ".join(str(count) for count in row) + " |")
    return lines


def model_card(
    recipe: Recipe,
    report: Report,
    manifest: dict[str, Any],
    onnx_path: Path,
    parity: float,
    note: str,
) -> str:
    """The card as Markdown."""
    speakers = manifest["training"]["speakers"]
    corpora = [get(name) for name in recipe.corpora]
    languages = len({corpus.language for corpus in corpora})
    frontend = recipe.frontend
    teacher = (
        f" A teacher was used: {recipe.distil.encoder}, layers "
        f"{', '.join(str(layer) for layer in recipe.distil.layers)}, with a head fitted on the "
        "same training speakers; none of its weights are in this model."
        if recipe.distil is not None
        else ""
    )
    lines = [
        f"# {recipe.name}, version {manifest['version']}",
        "",
        "A convolutional recurrent network that scores the emotion expressed in up to 3 s of "
        "speech. It takes raw 16 kHz audio; the log-mel front end is inside the graph.",
        "",
    ]
    if note:
        lines += [note, ""]
    lines += [
        f"- File: `{onnx_path.name}`, {onnx_path.stat().st_size / 1e6:.2f} MB, "
        f"SHA-256 `{manifest['file']['sha256']}`",
        f"- Labels: {', '.join(LABELS)}",
        f"- Front end: {frontend.n_mels} mel bands from {frontend.fmin_hz:g} to "
        f"{frontend.fmax_hz:g} Hz, every {1000 * frontend.hop_length / 16000:g} ms, each row "
        "normalised to its own level",
        f"- Licence of the weights: {manifest['licence']}. They inherit the non-commercial terms "
        "of the corpora they were trained on.",
        "",
        "## Training",
        "",
        f"Recipe `{recipe.name}`, seed {recipe.seed}, epoch {report.epoch}, chosen by UAR on the "
        "validation speakers (mean over corpora, clean and telephone). Training audio was "
        "degraded by noise, babble, hold music, rooms, equalisation, clipping and a telephone "
        f"channel (8 kHz, G.711, packet loss).{teacher}",
        "",
        "| corpus | language | licence | source |",
        "|---|---|---|---|",
        *[f"| {c.title} | {c.language} | {c.licence} | {c.source} |" for c in corpora],
        "",
        "Speakers, none of them in two parts:",
        "",
        *[f"- {part}: {', '.join(speakers[part])}" for part in PARTS],
        "",
        "## Figures",
        "",
        "Held-out test speakers, who took no part in training, choice of the epoch or fitting of "
        "the calibration. An utterance is cut "
        "to its speech and into 3 s segments every 1 s; segment scores are averaged by duration. "
        "UAR is the mean recall over the labels that a corpus has; all eight labels compete. "
        "Intervals are bootstrap intervals over utterances: they say nothing about other "
        "speakers, of whom there are few here.",
        "",
        *_figures(report.part("test")),
        "",
        "Confusion on test, clean, all corpora:",
        "",
        *_confusion(report.part("test")),
        "",
        "Validation speakers, used to choose the epoch and for calibration:",
        "",
        *_figures(report.part("validation")),
        "",
        "## Calibration",
        "",
        f"Temperature {report.temperature:g}, fitted on validation segments (at least 1: speakers "
        "recorded elsewhere are harder than these); expected calibration "
        f"error there {report.error_before:.3f} before and {report.error_after:.3f} after"
        + (
            f", on test {report.test_calibration_error:.3f}."
            if report.test_calibration_error is not None
            else "."
        )
        + f" Below a top score of {report.abstain_below:g} the daemon abstains; that keeps "
        f"{report.coverage:.0%} of the validation segments.",
        "",
        f"ONNX and PyTorch logits differ by at most {parity:.1g} on real audio.",
        "",
        "## Limits and intended use",
        "",
        "- All corpora are acted. Spontaneous emotion is weaker and more mixed; expect lower "
        "figures on it.",
        f"- {len(speakers['train'])} training speakers, {languages} languages; no children.",
        "- The label `calm` comes from one corpus only (RAVDESS).",
        "- Scores describe how speech sounds, not what a person feels. Not for decisions about "
        "people. Inferring emotions of employees or pupils is prohibited in the EU (AI Act, "
        "Article 5(1)(f)).",
        "",
    ]
    return "\n".join(lines)
