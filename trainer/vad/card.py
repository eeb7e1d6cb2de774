"""The model card of a voice-activity model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainer.vad.scoring import Score
from trainer.vad.settings import VadRecipe


def vad_card(
    recipe: VadRecipe,
    manifest: dict[str, Any],
    size: int,
    parity: float,
    scores: Sequence[Score],
    note: str,
) -> str:
    """The card as Markdown.

    Parameters
    ----------
    size
        bytes of the ONNX file.
    parity
        largest difference of probabilities from PyTorch's.
    scores
        figures of this model and, for the same conditions, of others.
    note
        a paragraph of the maker's.
    """
    network, mixture = recipe.network, recipe.mixture
    hours = (mixture.train + mixture.hard + mixture.alone) * mixture.seconds / 3600
    layers = "1 GRU layer" if network.layers == 1 else f"{network.layers} GRU layers"
    targets = recipe.targets
    lines = [
        f"# {manifest['name']}, version {manifest['version']}",
        "",
        "A small causal network that gives the probability of speech for every 32 ms of audio at "
        "8 or 16 kHz. It keeps a state from frame to frame and takes any number of streams at "
        "once.",
        "",
        *([note, ""] if note else []),
        f"- File: `{manifest['name']}.onnx`, {size / 1e6:.2f} MB, "
        f"SHA-256 `{manifest['file']['sha256']}`",
        f"- Licence of the weights: {manifest['licence']}, since some of the corpora are for "
        "non-commercial use",
        f"- Input: a frame and the 16 ms before it. Front end, inside the graph: "
        f"{recipe.frontend.low} mel bands up to 3.8 kHz and, at 16 kHz, {recipe.frontend.high} "
        "above, over two windows of 32 ms",
        f"- Network: a dense layer of {network.dense}, {layers} of "
        f"{network.hidden} units, a logistic output; one set of weights for both rates",
        "",
        "## Training",
        "",
        f"{hours:.0f} h of mixtures, made from recipe `{recipe.name}`, seed {recipe.seed}: "
        f"recordings of {', '.join(recipe.speech.corpora)}, cut to their speech and laid into "
        "conversations with pauses and overlaps; rooms, made up and recorded; environmental "
        "sounds, coloured noise with hum, knocks, babble; hold music, recorded and synthetic, and "
        "call progress tones, none of which is speech, some of them laid into the pauses anew in "
        "each epoch; levels from -54 to -14 dB of full scale; "
        "G.711, an analogue line's band, lost packets, comfort noise and digital silence.",
        "",
        f"Targets: {targets.label:g} the exact label (speech is energy within 32 dB of the loud "
        "part of a clean recording; pauses up to 300 ms count as speech), "
        f"{targets.clean:g} silero-vad's probability for the clean voice, {targets.noisy:g} its "
        "probability for the finished mixture.",
        "",
        "Kept out of training, and what every choice was made on: the speakers "
        f"{', '.join(recipe.speech.validation)}; every {recipe.noise.held_out_every}th "
        f"environmental sound; the music {', '.join(recipe.noise.held_out_music)}; the rooms "
        f"{', '.join(recipe.noise.held_out_rooms) or 'none'}.",
        "",
        "```",
        "serd-trainer vad train --out runs/serd-vad",
        "serd-trainer vad evaluate runs/serd-vad",
        "serd-trainer vad export runs/serd-vad",
        "```",
        "",
        "## Figures",
        "",
        "Area under the ROC curve over frames of 32 ms, and the shares of speech found and of "
        "other frames mistaken at a probability of 0.5. Conditions that begin with `meeting` are "
        "the test set: far-field meeting excerpts, speech "
        "where at least one turn covers a frame. The others are mixtures of what was kept out. "
        "`silero` is that network as published, `silero in serd` as the daemon runs it, with its "
        "state reset in silence.",
        "",
        *_table(scores),
        "",
        f"The ONNX file agrees with PyTorch to {parity:.1g}.",
        "",
        "## Limits",
        "",
        "The voices are acted and mostly single sentences of English, German, Italian and Polish; "
        "children are absent, and singing is not taken for speech on purpose or avoided. Music "
        "with a human voice is not in the training material. The test set is 150 s from one "
        "source.",
        "",
    ]
    return "\n".join(lines)


def _table(scores: Sequence[Score]) -> list[str]:
    detectors = list(dict.fromkeys(item.detector for item in scores))
    cells = {(item.condition, item.detector): item for item in scores}
    lines = [
        "| condition | "
        + " | ".join(f"{name}: AUC | found | mistaken" for name in detectors)
        + " |",
        "|---" + "|---:" * (3 * len(detectors)) + "|",
    ]
    for condition in dict.fromkeys(item.condition for item in scores):
        row = [condition]
        for name in detectors:
            item = cells.get((condition, name))
            row += (
                [f"{item.auc:.3f}", f"{item.found:.2f}", f"{item.false:.3f}"]
                if item
                else ["", "", ""]
            )
        lines.append("| " + " | ".join(row) + " |")
    return lines
