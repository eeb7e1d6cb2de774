"""Which network there is for a model, its graph, and the graph as a predictor."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from trainer.audio import Float32
from trainer.backbones.compact import Compact
from trainer.graph import OPSET, Int64, Predictor, onnx_session
from trainer.models import EmotionModel
from trainer.models.backbone import Backbone
from trainer.models.crnn import Crnn
from trainer.unpadded.compact import UnpaddedCompact
from trainer.unpadded.crnn import UnpaddedCrnn
from trainer.unpadded.narrowband import SAMPLE_RATE_HZ, narrowed


def has_form(model: EmotionModel) -> bool:
    """Whether there may be a network without padding that has the weights of `model`."""
    if isinstance(model, Backbone):
        return isinstance(model.encoder, Compact)
    return isinstance(model, Crnn)


def form_of(model: EmotionModel) -> nn.Module:
    """The network without padding that has the weights of `model`.

    Raises
    ------
    TrainerError
        there is none for such a model.
    """
    if isinstance(model, Backbone) and isinstance(model.encoder, Compact):
        return UnpaddedCompact(model, model.encoder)
    return UnpaddedCrnn(model)


def write_unpadded(model: EmotionModel, path: Path) -> None:
    """Export with both axes of `audio` free.

    Raises
    ------
    TrainerError
        the model has no such form.
    """
    unpadded = form_of(model.eval()).eval()
    with warnings.catch_warnings():
        # The tracing exporter is deprecated, but its successor needs onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            unpadded,
            (torch.randn(2, 3 * SAMPLE_RATE_HZ),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["audio"],
            output_names=["logits"],
            dynamic_axes={"audio": {0: "batch", 1: "samples"}, "logits": {0: "batch"}},
        )
    onnx.checker.check_model(onnx.load(path), full_check=True)


def whole_predictor(path: Path) -> Predictor:
    """The graph as a predictor of rows at 8 kHz that are valid to their end."""
    session = onnx_session(path)

    def predict(audio: Float32, length: Int64) -> Float32:
        (logits,) = session.run(["logits"], {"audio": audio})
        return np.asarray(logits, np.float32)

    return predict


def unpadded_predictor(path: Path) -> Predictor:
    """The graph as a predictor of segments at 16 kHz, each brought to 8 kHz and run alone."""
    whole = whole_predictor(path)

    def predict(audio: Float32, length: Int64) -> Float32:
        rows = zip(audio, length, strict=True)
        return np.concatenate([whole(narrowed(row, count)[None], length) for row, count in rows])

    return predict
