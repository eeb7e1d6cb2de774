"""Other forms of a graph: made, and kept only where they are worth having."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainer.errors import TrainerError
from trainer.evaluate import Segments, segment_logits, utterance_scores
from trainer.graph import Predictor, largest_difference, onnx_predictor
from trainer.halves import store_halves
from trainer.metrics import confusion_matrix, uar
from trainer.models import EmotionModel
from trainer.predictions import softmax
from trainer.quantise import Feed, write_fp16, write_int8
from trainer.timing import milliseconds
from trainer.unpadded.graph import unpadded_predictor, whole_predictor, write_unpadded
from trainer.unpadded.narrowband import SAMPLE_RATE_HZ, narrowed, widened

MOST_POINTS = 0.5
"""Of UAR that int8 may lose."""

LEAST_SPEED = 1.05
"""Times as fast as float32 that int8 must be on one CPU thread, in batches of `BATCH`."""

BATCH = 4
"""Segments that a busy daemon runs together."""

CALIBRATION_ROWS = 100

UNPADDED_TOLERANCE = 1e-3
"""Largest difference of scores between the two ways that 8 kHz audio can take."""

UNPADDED_ROWS = 100

FP16_TOLERANCE = 0.02
"""Largest difference of logits that float16 may make on real audio."""

FP16_ROWS = 48


@dataclass(frozen=True, slots=True)
class Variant:
    """What came of it, in words; `path` is None where it was given up."""

    name: str
    path: Path | None
    told: str

    def moved(self, folder: Path) -> Variant:
        """The same, its file in another folder."""
        return self if self.path is None else replace(self, path=folder / self.path.name)


def measure_uar(predict: Predictor, segments: Segments, labels: int) -> float:
    """UAR of whole utterances, all corpora together."""
    said = utterance_scores(segment_logits(predict, segments), segments).argmax(axis=1)
    return uar(confusion_matrix(segments.truth, np.asarray(said, np.int64), labels))


def try_unpadded(model: EmotionModel, source: Path, segments: Segments) -> Variant:
    """`…-8k.onnx` beside `source`, the graph for 8 kHz rows without padding, if scores agree."""
    target = source.with_name(f"{source.stem}-8k.onnx")
    try:
        write_unpadded(model, target)
        store_halves(target)
    except TrainerError as error:
        return Variant("8k", None, f"No graph without padding: {error}")
    audio, length = segments.audio, segments.length
    step = max(1, len(length) // UNPADDED_ROWS)
    # Half of full scale: at full scale the daemon clips what resampling adds to the peaks, which
    # the graph without resampling need not, and that is a difference of its own (1.4e-3 at most).
    peak = np.maximum(np.abs(audio[::step]).max(axis=1, keepdims=True), 1e-3)
    heard, valid = audio[::step] / peak / 2, length[::step]
    expected = softmax(onnx_predictor(source)(*widened(heard, valid)))
    worst = float(np.abs(softmax(unpadded_predictor(target)(heard, valid)) - expected).max())
    if not worst <= UNPADDED_TOLERANCE:
        target.unlink()
        told = f"The graph without padding changes scores by {worst:.2g}. Not kept."
        return Variant("8k", None, told)
    return Variant(
        "8k",
        target,
        f"`{target.name}`, which the daemon takes for 8 kHz audio without padding: the same "
        f"weights and no resampling; scores differ by at most {worst:.1g} on real audio "
        f"(tolerance {UNPADDED_TOLERANCE:g}).",
    )


def try_int8(source: Path, segments: Segments, labels: int, narrow: bool = False) -> Variant:
    """`…-int8.onnx` beside `source`, if it keeps UAR and is faster on the CPU.

    `narrow` says that `source` is a graph of `try_unpadded`: then it is `…-int8-8k.onnx`.
    """
    name = f"{source.stem.removesuffix('-8k')}-int8-8k" if narrow else f"{source.stem}-int8"
    target = source.with_name(f"{name}.onnx")
    step = max(1, len(segments.length) // CALIBRATION_ROWS)
    rows = list(zip(segments.audio[::step], segments.length[::step], strict=True))
    heard: list[Feed] = [{"audio": row[None], "length": count[None]} for row, count in rows]
    if narrow:
        heard = [{"audio": narrowed(row, count)[None]} for row, count in rows]
    ask = unpadded_predictor if narrow else onnx_predictor
    try:
        write_int8(source, target, heard)
    except TrainerError as error:
        return Variant("int8", None, f"No int8 form: {error}")
    points = 100 * (
        measure_uar(ask(source), segments, labels) - measure_uar(ask(target), segments, labels)
    )
    plain, small = (
        milliseconds([source, target], BATCH, samples=3 * SAMPLE_RATE_HZ, ask=whole_predictor)
        if narrow
        else milliseconds([source, target], BATCH)
    )
    facts = (
        f"int8: {small:.2f} ms a 3 s segment on one CPU thread against "
        f"{plain:.2f} ms, {target.stat().st_size / 1e6:.2f} MB against "
        f"{source.stat().st_size / 1e6:.2f} MB, UAR {-points:+.2f} points on "
        f"{len(segments.truth)} test recordings"
    )
    fault = ""
    if points > MOST_POINTS:
        fault = f"it loses more than {MOST_POINTS:g} points"
    elif plain < LEAST_SPEED * small:
        fault = f"it is not {LEAST_SPEED:g} times as fast"
    if fault:
        target.unlink()
        return Variant("int8", None, f"{facts}. Not kept: {fault}.")
    return Variant("int8", target, f"`{target.name}`: {facts}.")


def try_fp16(source: Path, segments: Segments, labels: int) -> Variant:
    """`…-fp16.onnx` beside `source`, if its logits stay within the tolerance."""
    target = source.with_name(f"{source.stem}-fp16.onnx")
    try:
        write_fp16(source, target)
    except TrainerError as error:
        return Variant("fp16", None, f"No float16 form: {error}")
    step = max(1, len(segments.length) // FP16_ROWS)
    worst = largest_difference(
        onnx_predictor(source),
        onnx_predictor(target),
        segments.audio[::step],
        segments.length[::step],
    )
    if not worst <= FP16_TOLERANCE:
        target.unlink()
        return Variant(
            "fp16",
            None,
            f"float16 changes logits by {worst:.2g}. Not kept: more than {FP16_TOLERANCE:g}.",
        )
    return Variant(
        "fp16",
        target,
        f"`{target.name}`, for a GPU: float16 behind the front end, "
        f"{target.stat().st_size / 1e6:.2f} MB; logits differ by at most {worst:.1g} on real audio "
        f"(tolerance {FP16_TOLERANCE:g}).",
    )
