"""Reading and writing of ONNX models, against the onnx package and the runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.inference.providers import Device, open_session
from serd.vad import onnx_graph
from serd.vad.onnx_graph import GraphWriter, read_constants


def affine(weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> bytes:
    """``reshape(x @ weight + bias, [-1, outputs])``."""
    graph = GraphWriter()
    product = graph.node(
        "MatMul", ["x", graph.constant("weight", weight.astype(np.float32))], "product"
    )
    total = graph.node("Add", [product, graph.constant("bias", bias.astype(np.float32))], "sum")
    shape = graph.constant("shape", np.array([-1, weight.shape[1]]))
    graph.node("Reshape", [total, shape], "y")
    return graph.model("affine", {"x": ("batch", len(weight))}, {"y": ("batch", weight.shape[1])})


def test_a_written_model_runs(rng: np.random.Generator) -> None:
    pytest.importorskip("onnxruntime")
    weight, bias = rng.normal(size=(200, 3)), rng.normal(size=3)
    session = open_session(affine(weight, bias), Device.CPU).session
    x = rng.normal(size=(5, 200)).astype(np.float32)
    [y] = session.run(None, {"x": x})
    np.testing.assert_allclose(y, x @ weight + bias, rtol=1e-4, atol=1e-4)
    assert [i.shape for i in session.get_inputs()] == [["batch", 200]]


def test_a_written_model_is_valid() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(affine(np.ones((2, 3)), np.zeros(3)))
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == onnx_graph.OPSET
    graph = GraphWriter()
    graph.node("Concat", ["a", "b"], "c", axis=1)
    model = onnx.load_from_string(graph.model("join", {"a": (1, 2), "b": (1, 3)}, {"c": (1, 5)}))
    onnx.checker.check_model(model, full_check=True)


def test_constants_are_found_in_subgraphs_too(rng: np.random.Generator) -> None:
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    here, there = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (4,)))

    def constant(name: str, values: Any) -> Any:
        return make.make_node(
            "Constant", [], [name], value=onnx.numpy_helper.from_array(values, "value")
        )

    def branch(name: str, values: Any) -> Any:
        kind = make.make_tensor_value_info(name, 1, values.shape)
        return make.make_graph([constant(name, values)], name, [], [kind])

    choice = make.make_node(
        "If", ["which"], ["out"], then_branch=branch("a", here), else_branch=branch("b", there)
    )
    graph = make.make_graph(
        [constant("top", here), constant("count", np.array([7])), choice],
        "choice",
        [make.make_tensor_value_info("which", 9, [])],
        [make.make_tensor_value_info("out", 1, None)],
    )
    found = read_constants(make.make_model(graph).SerializeToString())
    assert set(found) == {"top", "a", "b"}
    for name, values in (("top", here), ("a", here), ("b", there)):
        assert np.array_equal(found[name], values)


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.binary(max_size=300))), st.data())
def test_fields_come_back(fields: list[tuple[int, bytes]], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, (1 << 63) - 1), max_size=5))
    message = b"".join(onnx_graph._field(number, content) for number, content in fields)
    message += b"".join(onnx_graph._field(3, number) for number in numbers)
    back = [(number, bytes(content)) for number, content in onnx_graph._fields(memoryview(message))]
    assert back[: len(fields)] == fields
    assert [onnx_graph._varints(memoryview(c)) for _, c in back[len(fields) :]] == [
        [number] for number in numbers
    ]
