"""int8 and float16 forms of a graph: made, and kept only where they are worth having."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainer.errors import TrainerError
from trainer.evaluate import Segments, segment_logits, utterance_scores
from trainer.graph import Predictor, largest_difference, onnx_predictor
from trainer.metrics import confusion_matrix, uar
from trainer.quantise import write_fp16, write_int8
from trainer.timing import milliseconds

MOST_POINTS = 0.5
"""Of UAR that int8 may lose."""

LEAST_SPEED = 1.05
"""Times as fast as float32 that int8 must be on one CPU thread, a segment at a time."""

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


def try_int8(source: Path, segments: Segments, labels: int) -> Variant:
    """`…-int8.onnx` beside `source`, if it keeps UAR and is faster on the CPU."""
    target = source.with_name(f"{source.stem}-int8.onnx")
    try:
        write_int8(source, target)
    except TrainerError as error:
        return Variant("int8", None, f"No int8 form: {error}")
    points = 100 * (
        measure_uar(onnx_predictor(source), segments, labels)
        - measure_uar(onnx_predictor(target), segments, labels)
    )
    plain, small = milliseconds([source, target])
    facts = (
        f"int8 (matrix products and LSTMs): {small:.2f} ms a 3 s segment on one CPU thread against "
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
