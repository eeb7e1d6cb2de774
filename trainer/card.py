"""The model card: what a model is, what it was trained on, what its figures mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.backbones.compact import Compact
from trainer.corpora import REGISTRY
from trainer.crossfit import Scaling
from trainer.features import LogMelSettings
from trainer.licence import Licence
from trainer.models import BackboneSettings
from trainer.models.backbone import Backbone
from trainer.origin import Origin
from trainer.report import Entry, Row
from trainer.splits import PARTS
from trainer.variants import Variant

_NETWORKS = {
    "crnn": "A convolutional recurrent network",
    "cnn1d": "A one-dimensional convolutional network",
    "cnn2d": "A two-dimensional convolutional network",
    "lstm": "An LSTM network",
    "gru": "A GRU network",
    "conformer": "A conformer",
    "backbone": "A pretrained speech encoder with a small head",
    "forest": "A random forest",
    "svm": "A support vector machine",
}
SPEAKER_DEPENDENT = (
    "*Speaker-dependent*: test speakers also trained. These figures say how well known voices are "
    "told apart, not how the model does on new ones."
)


def model_card(
    origin: Origin,
    manifest: dict[str, Any],
    licence: Licence,
    onnx_path: Path,
    parity: float | None,
    variants: Sequence[Variant],
    note: str,
) -> str:
    """The card as Markdown.

    Parameters
    ----------
    parity
        largest difference of logits from PyTorch's; None for what scikit-learn fitted.
    variants
        int8 and float16, made or given up.
    note
        a paragraph of the maker's.
    """
    lines = [
        f"# {manifest['name']}, version {manifest['version']}",
        "",
        f"{_network(origin)} that scores the emotion expressed "
        "in up to 3 s of speech. It takes raw 16 kHz audio; the features are computed inside the "
        "graph.",
        "",
        *([note, ""] if note else []),
        f"- File: `{onnx_path.name}`, {onnx_path.stat().st_size / 1e6:.2f} MB, "
        f"SHA-256 `{manifest['file']['sha256']}`",
        f"- Labels: {', '.join(manifest['labels'])}",
        f"- Front end: {_frontend(origin)}",
        f"- Licence of the weights: {licence.name}. {licence.reason}",
        "",
        *_training(origin, manifest),
        *_figures(origin),
        *_calibration(origin),
        _agreement(parity),
        "",
        *([line for variant in variants for line in (f"- {variant.told}",)]),
        *([""] if variants else []),
        *_limits(origin, manifest),
    ]
    return "\n".join(lines)


def _network(origin: Origin) -> str:
    encoder = _compact(origin)
    if encoder is None:
        return _NETWORKS.get(origin.recipe.model.kind, "A network")
    return (
        f"Two convolutions and {encoder.settings.depth} layers of self-attention, begun as a piece "
        "of Whisper tiny.en (MIT licence) and taught by it; mean and deviation over time; a small "
        "head, and a linear expert for each corpus behind a gate that recognises the corpus by "
        "its sound: a network"
    )


def _compact(origin: Origin) -> Compact | None:
    model = origin.model
    found = model.encoder if isinstance(model, Backbone) else None
    return found if isinstance(found, Compact) else None


def _frontend(origin: Origin) -> str:
    settings, model = origin.recipe.frontend, origin.recipe.model
    encoder = _compact(origin)
    if encoder is not None:
        return (
            f"{encoder.settings.bands} mel bands up to {encoder.log_mel.highest_hz:.0f} Hz every "
            f"10 ms, as Whisper's; {encoder.settings.stride * 20} ms from step to step"
        )
    if isinstance(model, BackboneSettings):
        return (
            f"that of the encoder, `{model.encoder}`, layers {', '.join(map(str, model.layers))}; "
            "its weights are in the file, and its licence holds for them"
        )
    every = f"every {1000 * settings.hop_length / settings.sample_rate_hz:g} ms"
    if isinstance(settings, LogMelSettings):
        return (
            f"{settings.n_mels} mel bands from {settings.fmin_hz:g} to {settings.fmax_hz:g} Hz, "
            f"{every}, each row normalised to its own level"
        )
    text = f"{', '.join(settings.features)} {every}"
    if settings.summary:
        text += f", of which {', '.join(settings.summary)} over time"
    return text + (", standardised on the training part" if settings.standardise else "")


def _training(origin: Origin, manifest: dict[str, Any]) -> list[str]:
    recipe = origin.recipe
    epoch = f", epoch {origin.epoch}" if origin.epoch else ""
    chosen = ", chosen by UAR on the validation speakers" if origin.speakers["validation"] else ""
    text = f"Recipe `{recipe.name}`, seed {recipe.seed}{epoch}{chosen if epoch else ''}."
    degraded = [
        name
        for name in ("room", "noise", "music", "babble", "equaliser", "clipping", "telephone")
        if getattr(recipe.augment, name, 0) > 0
    ]
    if recipe.augment.copies > 1 and degraded:
        text += (
            f" Of each training recording there were {recipe.augment.copies} copies, degraded by "
            f"{', '.join(degraded)}."
        )
    if recipe.distil is not None:
        values = recipe.distil.model_dump()
        layers = ", ".join(str(layer) for layer in values.get("layers", ()))
        text += (
            f" A teacher was used ({values.get('encoder', 'see the recipe')}"
            f"{f', layers {layers}' if layers else ''}); none of its weights are in this model."
        )
    if recipe.refit is not None:
        text += (
            f" Afterwards {recipe.refit.share:.0%} of its last layer came of a fit to the "
            "embeddings of those it was trained on, each label of each corpus counting nearly "
            "alike."
        )
    if recipe.prepare.trim != "speech":
        text += (
            f" Recordings were trimmed by `{recipe.prepare.trim}` for training, where the daemon "
            "cuts utterances by voice activity."
        )
    lines = ["## Training", "", text, "", "| corpus | language | licence | source |"]
    lines.append("|---|---|---|---|")
    for name in manifest["training"]["corpora"]:
        corpus = REGISTRY.get(recipe.corpora[name].loader or name)
        if corpus is None:
            lines.append(f"| {name} | | not stated | recordings of the maker's own |")
        else:
            lines.append(
                f"| {corpus.title} | {corpus.language} | {corpus.licence} | {corpus.source} |"
            )
    speakers = manifest["training"]["speakers"]
    apart = "" if origin.speaker_dependent else ", none of them in two parts"
    return [
        *lines,
        "",
        f"Speakers{apart}:",
        "",
        *[f"- {part}: {', '.join(speakers[part]) or 'nobody'}" for part in PARTS],
        "",
    ]


def _figures(origin: Origin) -> list[str]:
    lines = [
        "## Figures",
        "",
        "An utterance is cut to its speech and into 3 s segments every 1 s; segment scores are "
        "averaged by duration. UAR is the mean recall over the labels that a corpus has; all "
        f"{len(origin.labels)} labels compete. *Whole file* is the recording as it is, as in "
        "published figures. Intervals are bootstrap intervals over speakers where there are five "
        "or more, else over utterances: those say nothing about other speakers.",
        "",
    ]
    for entry in origin.entries:
        whose = (
            "Figures of other models of the same recipe, each tested on speakers that it had not "
            "heard; this one was trained on all of them, so nobody is left to test it on."
            if origin.stands_for_folds
            else "Figures of this model, on speakers who took no part in training, choice of the "
            "epoch or fitting of the calibration."
        )
        if entry.speaker_dependent:
            whose = SPEAKER_DEPENDENT
        lines += [
            f"### {entry.protocol}: {entry.description}",
            "",
            whose,
            "",
            *_table(entry),
            "",
            "Confusion, clean, all corpora:",
            "",
            *_confusion(entry),
            "",
        ]
    lines += [f"- Not measured: {text}" for text in origin.missing]
    return [*lines, *([""] if origin.missing else [])]


def _table(entry: Entry) -> list[str]:
    lines = [
        "| corpus | utterances | UAR | 95 % interval | accuracy | UAR, 8 kHz µ-law | loss "
        "| UAR, whole file |",
        "|---|---|---|---|---|---|---|---|",
    ]
    columns: list[tuple[float, float, float]] = []
    for row in entry.select(group="corpus"):
        low, high = row.shown(row.uar) or (None, None)
        clean, far, whole = (
            _uar(entry.row(condition, group="corpus", name=row.name))
            for condition in ("clean", "telephone-mulaw-8k", "whole-file")
        )
        columns.append((clean, far, whole))
        lines.append(
            f"| {row.name} | {row.count} | {clean:.4f} | {_number(low)} to {_number(high)} | "
            f"{row.accuracy.value or 0.0:.4f} | {far:.4f} | {100 * (clean - far):+.1f} points | "
            f"{_number(whole, 4)} |"
        )
    if len(columns) > 1:
        clean, far, whole = np.mean(columns, axis=0)
        lines.append(
            f"| mean over corpora | | {clean:.4f} | | | {far:.4f} | "
            f"{100 * (clean - far):+.1f} points | {_number(whole, 4)} |"
        )
    return lines


def _uar(row: Row | None) -> float:
    return float("nan") if row is None or row.uar.value is None else row.uar.value


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _confusion(entry: Entry) -> list[str]:
    row = entry.row()
    if row is None:
        return []
    lines = [
        "| truth \\ said | " + " | ".join(entry.labels) + " |",
        "|---" * (len(entry.labels) + 1) + "|",
    ]
    for label, counts in zip(entry.labels, row.confusion, strict=True):
        lines.append(f"| {label} | " + " | ".join(str(count) for count in counts) + " |")
    return lines


def _calibration(origin: Origin) -> list[str]:
    found = origin.calibration
    before, after = found.errors["none"], found.kept
    return [
        "## Calibration",
        "",
        f"{_method(found.scaling)}, fitted on {origin.calibrated_on}. Expected calibration error, "
        f"each fold measured with what was fitted on the others: {before.segments:.3f} before and "
        f"{after.segments:.3f} after for segments, {before.utterances:.3f} and "
        f"{after.utterances:.3f} for whole utterances, clean and telephone together. Below a top "
        f"score of {found.abstain_below:g} the daemon abstains; that keeps {found.coverage:.0%} of "
        f"those segments, of which {found.precision:.0%} are right.",
        "",
    ]


def _method(scaling: Scaling) -> str:
    if scaling.method == "vector":
        return "A scale and a bias for each label, inside the graph (temperature 1 in the manifest)"
    if scaling.method == "none":
        return "Temperature 1, as no other was better"
    return f"Temperature {scaling.temperature:g}"


def _agreement(parity: float | None) -> str:
    if parity is None:
        return "The graph was held against scikit-learn's own scores when it was fitted."
    return f"ONNX and PyTorch logits differ by at most {parity:.1g} on real audio."


def _limits(origin: Origin, manifest: dict[str, Any]) -> list[str]:
    trained = manifest["training"]["corpora"]
    known = [REGISTRY.get(origin.recipe.corpora[name].loader or name) for name in trained]
    lines = ["## Limits and intended use", ""]
    if all(known):
        languages = len({corpus.language for corpus in known if corpus is not None})
        lines += [
            "- All corpora are acted. Spontaneous emotion is weaker and more mixed; expect lower "
            "figures on it.",
            f"- {len(manifest['training']['speakers']['train'])} training speakers, {languages} "
            f"{'language' if languages == 1 else 'languages'}; no children.",
        ]
    if len(trained) > 1:
        lines += [
            f"- The label `{label}` comes from one corpus only ({corpus})."
            for label, corpus in origin.lonely_labels()
        ]
    return [
        *lines,
        "- Scores describe how speech sounds, not what a person feels. Not for decisions about "
        "people. Inferring emotions of employees or pupils is prohibited in the EU (AI Act, "
        "Article 5(1)(f)).",
        "",
    ]
