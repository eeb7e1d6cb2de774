"""Forest and support vector machine: fitted by scikit-learn, kept as an ONNX graph.

The graph holds the features too, so audio goes in and logits come out as of every other model;
there is no pickle to trust. Probabilities of the machine are Platt's: a sigmoid for each label over
decision values of machines fitted on other speakers, then normalised. The forest's are the mean of
its trees' leaves. Logits are their logarithms.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn

from trainer.audio import WINDOW_SAMPLES, Float32
from trainer.errors import TrainerError
from trainer.features import Frontend, FrontendSettings, build_frontend
from trainer.graph import OPSET, Int64, write_onnx
from trainer.models import forest, svm

FLOOR = 1e-4
"""Least probability before the logarithm: a label that no tree has heard is not impossible."""

PARITY_TOLERANCE = 0.02
"""Of probabilities: float32 may send a row down another branch of a tree or two."""

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


class _Vector(nn.Module):
    """A summary front end's single column: float32 [batch, dims]."""

    def __init__(self, frontend: Frontend) -> None:
        super().__init__()
        self.frontend = frontend

    def forward(self, audio: Tensor, length: Tensor) -> Tensor:
        features, _ = self.frontend(audio, length)
        column: Tensor = features[:, :, 0]
        return column


def fit_classical(
    settings: forest.ForestSettings | svm.SvmSettings,
    frontend_settings: FrontendSettings,
    batches: Iterable[Batch],
    labels: int,
    seed: int,
    samples: int = WINDOW_SAMPLES,
) -> onnx.ModelProto:
    """Fit the front end, then the classifier, on training audio.

    Parameters
    ----------
    batches
        (audio float32 [batch, samples], length int64 [batch], label int64 [batch],
        group int64 [batch]); gone through twice, so no generator. Rows of one group are never on
        both sides where scores are turned into probabilities: speakers, or utterances where there
        is but one speaker.
    labels
        size of the label set; those without a training row get the least logit.

    Returns
    -------
    A graph with inputs `audio` and `length` and the output `logits`, opset 17.

    Raises
    ------
    TrainerError
        the features are a sequence, there are fewer than two labels or groups to fit on, or the
        graph does not agree with scikit-learn.
    """
    if iter(batches) is batches:
        raise TypeError("batches is gone through twice: pass a list, not a generator")
    frontend = build_frontend(frontend_settings)
    if not frontend.is_summary:
        raise TrainerError(
            f"model.kind = {settings.kind!r} takes one vector a segment: name statistics in "
            'frontend.summary (with frontend.kind = "frames"), such as ["mean", "std"].'
        )
    frontend.fit((audio, length) for audio, length, _, _ in batches)
    vector = _Vector(frontend.eval())
    features, truth, group = _collect(vector, batches)
    there = np.unique(truth)
    if len(there) < 2:
        raise TrainerError(f"model.kind = {settings.kind!r}: all training rows have one label.")
    estimator = _fit(settings, features, truth, group, seed)
    classifier = _classifier_graph(estimator, features.shape[1], labels)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "features.onnx"
        write_onnx(vector, path, "features", samples)
        model = _merged(onnx.load(path), classifier)
    _check(model, estimator, features, batches, labels)
    return model


def _collect(vector: _Vector, batches: Iterable[Batch]) -> tuple[Float32, Int64, Int64]:
    features, truth, group = [], [], []
    with torch.inference_mode():
        for audio, length, label, who in batches:
            features.append(vector(audio, length).numpy())
            truth.append(label.numpy())
            group.append(who.numpy())
    if not features:
        raise TrainerError("There is no training audio to fit on.")
    return np.concatenate(features), np.concatenate(truth), np.concatenate(group)


def _fit(
    settings: forest.ForestSettings | svm.SvmSettings,
    features: Float32,
    truth: Int64,
    group: Int64,
    seed: int,
) -> Any:
    if isinstance(settings, forest.ForestSettings):
        return forest.estimator(settings, seed).fit(features, truth)
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedGroupKFold

    groups = len(np.unique(group))
    if groups < 2:
        raise TrainerError(
            "model.kind = 'svm' needs two training speakers or more, to turn scores into "
            "probabilities on speakers that it was not fitted on."
        )
    splitter = StratifiedGroupKFold(min(settings.folds, groups))
    with warnings.catch_warnings():
        # Folds that hold few rows of a label are expected: speakers do not act all of them.
        warnings.simplefilter("ignore")
        folds = list(splitter.split(features, truth, group))
        for fitted, _ in folds:
            missing = set(np.unique(truth)) - set(np.unique(truth[fitted]))
            if missing:
                raise TrainerError(
                    "model.kind = 'svm': one group of training speakers holds all rows of a "
                    "label, so its scores cannot become probabilities: lower model.folds, or "
                    "leave the label out."
                )
        machine = CalibratedClassifierCV(
            svm.estimator(settings, seed), method="sigmoid", cv=folds, ensemble=False
        )
        return machine.fit(features, truth)


def _classifier_graph(estimator: Any, dims: int, labels: int) -> onnx.ModelProto:
    """The estimator from `features` [batch, dims] to `logits` [batch, labels]."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        # The converter looks at attributes that scikit-learn is about to drop.
        warnings.simplefilter("ignore", FutureWarning)
        model: onnx.ModelProto = to_onnx(
            estimator,
            initial_types=[("features", FloatTensorType([None, dims]))],
            target_opset={"": OPSET, "ai.onnx.ml": 3},
            options={id(estimator): {"zipmap": False}},
        )
    place = np.zeros((len(estimator.classes_), labels), np.float32)
    place[np.arange(len(estimator.classes_)), estimator.classes_] = 1.0
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(place, "place"),
            numpy_helper.from_array(np.asarray(FLOOR, np.float32), "floor"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("MatMul", [graph.output[1].name, "place"], ["placed"]),
            helper.make_node("Max", ["placed", "floor"], ["floored"]),
            helper.make_node("Log", ["floored"], ["logits"]),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, labels]))
    return model


def _merged(features: onnx.ModelProto, classifier: onnx.ModelProto) -> onnx.ModelProto:
    versions: dict[str, int] = {}
    for model in (features, classifier):
        for entry in model.opset_import:
            versions[entry.domain] = max(versions.get(entry.domain, 1), entry.version)
    for model in (features, classifier):
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid(*item) for item in versions.items())
    classifier.ir_version = features.ir_version
    merged: onnx.ModelProto = compose.merge_models(
        features,
        compose.add_prefix(classifier, "classifier/"),
        io_map=[("features", "classifier/features")],
        outputs=["classifier/logits"],
    )
    for node in merged.graph.node:
        for i, name in enumerate(node.output):
            if name == "classifier/logits":
                node.output[i] = "logits"
    output = merged.graph.output[0]
    output.name = "logits"
    output.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(merged, full_check=True)
    return merged


def _check(
    model: onnx.ModelProto,
    estimator: Any,
    features: Float32,
    batches: Iterable[Batch],
    labels: int,
) -> None:
    """Hold the graph against scikit-learn on the first batch of audio."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    audio, length, _, _ = next(iter(batches))
    (logits,) = session.run(["logits"], {"audio": audio.numpy(), "length": length.numpy()})
    expected = np.zeros((len(length), labels))
    expected[:, estimator.classes_] = estimator.predict_proba(features[: len(length)])
    worst = float(np.abs(np.exp(logits) - np.maximum(expected, FLOOR)).max())
    if not worst <= PARITY_TOLERANCE:
        raise TrainerError(
            f"The graph's probabilities differ by {worst:.2g} from scikit-learn's, more than "
            f"{PARITY_TOLERANCE:g}."
        )
