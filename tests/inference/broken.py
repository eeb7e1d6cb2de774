"""Real models for swapping: sound ones that differ in name and labels, and broken ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from serd.inference.manifest import file_sha256
from tests.inference.tiny import LABELS, build_model, emotion_manifest, onnx, write

# Far more steps than a test, or a year, has time for.
_FOR_EVER = 10**15
# Each level takes a piece of the runtime's stack, of which a thread has 8 MiB.
_LEVELS = 20_000


class Maker(Protocol):
    """One of the functions below."""

    def __call__(self, folder: Path, name: str) -> Path:
        """Make the model; path of its manifest."""


def sound(folder: Path, name: str, labels: Sequence[str] = LABELS) -> Path:
    """A model that works; path of its manifest."""
    return _changed(folder, name, labels=labels)


def wrong_hash(folder: Path, name: str) -> Path:
    """Its file is another one than its manifest says."""
    path = sound(folder, name)
    manifest = json.loads(path.read_text())
    manifest["file"]["sha256"] = "0" * 64
    return write(path, manifest)


def no_graph(folder: Path, name: str) -> Path:
    """Its file has the right hash and is no ONNX."""
    path = sound(folder, name)
    file = path.with_suffix(".onnx")
    file.write_bytes(file.read_bytes()[:100])
    return _manifest(file, name, LABELS)


def wrong_shape(folder: Path, name: str) -> Path:
    """Its manifest names more labels than its graph has outputs."""
    return _manifest(sound(folder, name).with_suffix(".onnx"), name, [*LABELS, "bored"])


def nothing_finite(folder: Path, name: str) -> Path:
    """Whatever it hears, it answers NaN."""

    def change(helper: Any, raw: str) -> list[Any]:
        nan = helper.make_tensor("all_nan", onnx.TensorProto.FLOAT, [1], [float("nan")])
        return [
            helper.make_node("Constant", [], ["nan_value"], value=nan),
            helper.make_node("Add", [raw, "nan_value"], ["logits"]),
        ]

    return _changed(folder, name, change)


def hanging(folder: Path, name: str, *, when_loud: bool) -> Path:
    """Never comes back: always, or from a batch in which a segment begins above half scale."""

    def change(helper: Any, raw: str) -> list[Any]:
        numpy_helper, proto = onnx.numpy_helper, onnx.TensorProto

        def constant(name: str, value: Any) -> Any:
            tensor = numpy_helper.from_array(np.array(value), name)
            return helper.make_node("Constant", [], [name], value=tensor)

        body = helper.make_graph(
            [
                helper.make_node("Identity", ["again"], ["again_out"]),
                helper.make_node("Identity", ["held"], ["held_out"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("step", proto.INT64, []),
                helper.make_tensor_value_info("again", proto.BOOL, []),
                helper.make_tensor_value_info("held", proto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("again_out", proto.BOOL, []),
                helper.make_tensor_value_info("held_out", proto.FLOAT, None),
            ],
        )
        trips = [constant("trips", np.int64(_FOR_EVER))]
        if when_loud:
            trips = [
                constant("never", np.int64(0)),
                constant("ever", np.int64(_FOR_EVER)),
                constant("half_scale", np.float32(0.5)),
                constant("zeroth", np.array([0], np.int64)),
                helper.make_node("Gather", ["audio", "zeroth"], ["begins"], axis=1),
                helper.make_node("ReduceMax", ["begins"], ["loudest"], keepdims=0),
                helper.make_node("Greater", ["loudest", "half_scale"], ["loud"]),
                helper.make_node("Where", ["loud", "ever", "never"], ["trips"]),
            ]
        return [
            *trips,
            constant("yes", np.bool_(True)),
            helper.make_node("Loop", ["trips", "yes", raw], ["logits"], body=body),
        ]

    return _changed(folder, name, change)


def bottomless(folder: Path, name: str) -> Path:
    """Ends the process that opens it, by SIGSEGV: functions in functions, beyond the stack."""
    path = sound(folder, name)
    file = path.with_suffix(".onnx")
    made = onnx.load(str(file))
    helper = onnx.helper
    made.opset_import.append(helper.make_opsetid("deep", 1))
    made.graph.node[-1].output[0] = "raw_logits"
    made.graph.node.append(helper.make_node("f0", ["raw_logits"], ["logits"], domain="deep"))
    for level in range(_LEVELS):
        inside = helper.make_node(f"f{level + 1}", ["x"], ["y"], domain="deep")
        if level + 1 == _LEVELS:
            inside = helper.make_node("Identity", ["x"], ["y"])
        made.functions.append(
            helper.make_function("deep", f"f{level}", ["x"], ["y"], [inside], made.opset_import)
        )
    onnx.save(made, str(file))
    return _manifest(file, name, LABELS)


def overflowing(folder: Path, name: str) -> Path:
    """Ends the process that runs it, by SIGFPE on x86: the least of whole numbers divided by -1."""

    def change(helper: Any, raw: str) -> list[Any]:
        def constant(name: str, value: int) -> Any:
            tensor = onnx.numpy_helper.from_array(np.array([value], np.int64), name)
            return helper.make_node("Constant", [], [name], value=tensor)

        return [
            constant("least", -(2**63)),
            constant("minus_one", -1),
            # From an input, or the runtime would work it out when the model is opened.
            helper.make_node("Sub", ["length", "length"], ["nothing"]),
            helper.make_node("Add", ["nothing", "least"], ["dividend"]),
            helper.make_node("Add", ["nothing", "minus_one"], ["divisor"]),
            helper.make_node("Div", ["dividend", "divisor"], ["quotient"]),
            helper.make_node("Cast", ["quotient"], ["huge"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["huge", "axis1"], ["column"]),
            helper.make_node("Add", [raw, "column"], ["logits"]),
        ]

    return _changed(folder, name, change)


def hungry(folder: Path, name: str, size_bytes: int = 2 << 30) -> Path:
    """Wants so much memory for every run."""

    def change(helper: Any, raw: str) -> list[Any]:
        numpy_helper, proto = onnx.numpy_helper, onnx.TensorProto

        def constant(name: str, value: Any) -> Any:
            return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))

        one = helper.make_tensor("one", proto.FLOAT, [1], [1.0])
        return [
            constant("first", np.array([0], np.int64)),
            constant("elements", np.array([size_bytes // 4], np.int64)),
            # From an input, or the runtime would make it when the model is opened.
            helper.make_node("Gather", ["length", "first"], ["some"]),
            helper.make_node("Sub", ["some", "some"], ["nothing"]),
            helper.make_node("Add", ["nothing", "elements"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=one),
            helper.make_node("ReduceMin", ["ones"], ["least"], keepdims=0),
            helper.make_node("Mul", [raw, "least"], ["logits"]),
        ]

    return _changed(folder, name, change)


def poisoned(folder: Path, name: str) -> Path:
    """Answers NaN for segments that begin above half scale."""
    return _changed(folder, name, poison=True)


def _changed(
    folder: Path,
    name: str,
    change: Any = None,
    labels: Sequence[str] = LABELS,
    *,
    poison: bool = False,
) -> Path:
    made = onnx.load(str(build_model(folder, poison=poison).with_suffix(".onnx")))
    if change is not None:
        for node in made.graph.node:
            for index, output in enumerate(node.output):
                if output == "logits":
                    node.output[index] = "raw_logits"
        made.graph.node.extend(change(onnx.helper, "raw_logits"))
        onnx.checker.check_model(made)
    # Files of two models differ, as they would.
    made.doc_string = name
    file = folder / f"{name}.onnx"
    onnx.save(made, str(file))
    return _manifest(file, name, labels)


def _manifest(file: Path, name: str, labels: Sequence[str]) -> Path:
    reference = {"path": file.name, "sha256": file_sha256(file)}
    manifest = emotion_manifest(name=name, labels=list(labels), file=reference)
    return write(file.with_suffix(".json"), manifest)
