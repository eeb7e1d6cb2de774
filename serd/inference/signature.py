"""Does an ONNX graph have the inputs and outputs that its manifest speaks of?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from serd.errors import ModelError
from serd.inference.manifest import EmotionManifest

FLOAT = "tensor(float)"
INT64 = "tensor(int64)"

_FREE = -1


class Tensor(Protocol):
    """A graph input or output as ONNX Runtime describes it (`NodeArg`)."""

    @property
    def name(self) -> str:
        """Name in the graph."""
        ...

    @property
    def type(self) -> str:
        """Element type, such as ``tensor(float)``."""
        ...

    @property
    def shape(self) -> Sequence[int | str | None]:
        """Sizes; a name or None where the axis is free."""
        ...


def check_signature(
    manifest: EmotionManifest, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> None:
    """Compare a graph with its manifest.

    Raises
    ------
    ModelError
        ``model_signature``; the message names the manifest's field and says what the graph has.
    """
    where = str(manifest.path or manifest.name)
    expected = manifest.input
    _check(where, "input.audio", expected.audio, inputs, FLOAT, "input.samples", expected.samples)
    _check(where, "input.length", expected.length, inputs, INT64, "", None)
    known = {expected.audio, expected.length}
    others = [tensor.name for tensor in inputs if tensor.name not in known]
    if others:
        raise ModelError(
            "model_signature",
            f"{where}: input: the graph also wants {', '.join(others)}, which is not described",
        )
    logits = manifest.output.logits
    _check(where, "output.logits", logits, outputs, FLOAT, "labels", len(manifest.labels))


def check_unpadded_signature(
    manifest: EmotionManifest, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> None:
    """Compare the graph for rows without padding with its manifest.

    Raises
    ------
    ModelError
        ``model_signature``; the message names the manifest's field and says what the graph has.
    """
    where = str(manifest.path or manifest.name)
    audio, logits = manifest.input.audio, manifest.output.logits
    others = [tensor.name for tensor in inputs if tensor.name != audio]
    if others:
        raise ModelError(
            "model_signature", f"{where}: unpadded: the graph also wants {', '.join(others)}"
        )
    _check(where, "input.audio", audio, inputs, FLOAT, "unpadded", _FREE)
    _check(where, "output.logits", logits, outputs, FLOAT, "labels", len(manifest.labels))


def _check(
    where: str,
    field: str,
    name: str,
    tensors: Sequence[Tensor],
    element: str,
    size_field: str,
    size: int | None,
) -> None:
    def refuse(field: str, message: str) -> ModelError:
        return ModelError("model_signature", f"{where}: {field}: {message}")

    tensor = next((tensor for tensor in tensors if tensor.name == name), None)
    if tensor is None:
        there = ", ".join(tensor.name for tensor in tensors) or "nothing"
        raise refuse(field, f"the graph has no {name!r} (it has {there})")
    if tensor.type != element:
        raise refuse(field, f"{name!r} is {tensor.type} in the graph, must be {element}")
    axes = ["batch"] if size is None else ["batch", size]
    shape = list(tensor.shape)
    if len(shape) != len(axes):
        raise refuse(field, f"{name!r} has shape {shape} in the graph, must be {axes}")
    if isinstance(shape[0], int):
        raise refuse(field, f"{name!r} has a fixed batch of {shape[0]} in the graph")
    if size == _FREE:
        if isinstance(shape[1], int):
            raise refuse(size_field, f"{name!r} has {shape[1]} samples in the graph, must be free")
        return
    # A free second axis says nothing against the manifest; the warm-up run shows the rest.
    if size is not None and isinstance(shape[1], int) and shape[1] != size:
        raise refuse(size_field, f"is {size} here, {name!r} has {shape[1]} in the graph")
