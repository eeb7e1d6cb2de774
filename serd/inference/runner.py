"""One run of a graph: plainly on the CPU, through buffers that stay on the device on a GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from serd.inference.providers import CUDA, LiveSession
from serd.types import Float32Array

Feed = Mapping[str, np.ndarray[Any, Any]]


class Runner(Protocol):
    """A graph with one output.

    `compute_ns`: CPU time that the calling thread has spent inside the runtime, in total. It leaves
    out the runtime's own threads, which there are none of with ``inference.threads = 1``, and the
    waiting for a GPU as far as the driver sleeps.
    """

    compute_ns: int

    def run(self, feed: Feed) -> Float32Array:
        """The output for inputs whose first axis is the batch; the caller's own array."""
        ...


class PlainRunner:
    """`Runner` by a plain run, which takes NumPy's memory as it is: nothing is copied."""

    def __init__(self, session: Any, output: str) -> None:
        self.compute_ns = 0
        self._session = session
        self._outputs = [output]

    def run(self, feed: Feed) -> Float32Array:
        """See `Runner`."""
        started_ns = time.thread_time_ns()
        try:
            found: Float32Array = self._session.run(self._outputs, feed)[0]
        finally:
            self.compute_ns += time.thread_time_ns() - started_ns
        return found


class BoundRunner:
    """`Runner` by IO binding: inputs and output of each shape have their place on the device.

    A plain run on a GPU allocates device memory for every input and output anew, and stages them
    through memory of its own. Here each input is one copy into a buffer that is already there.

    Parameters
    ----------
    session
        An open `onnxruntime.InferenceSession`.
    output
        Name of its output, float32 ``[batch, columns]``.
    columns
        Size of the output's second axis.
    device
        ``cuda``; with ``cpu`` the same path runs without a GPU.

    Notes
    -----
    Buffers of a shape are kept for good, so the shapes ought to be few.
    """

    def __init__(self, session: Any, output: str, columns: int, device: str = "cuda") -> None:
        self.compute_ns = 0
        self._session = session
        self._output = output
        self._columns = columns
        self._device = device
        self._bound: dict[tuple[int, ...], tuple[Any, dict[str, Any], Any]] = {}

    def run(self, feed: Feed) -> Float32Array:
        """See `Runner`."""
        shape = tuple(size for array in feed.values() for size in array.shape)
        if shape not in self._bound:
            self._bound[shape] = self._bind(feed)
        binding, inputs, output = self._bound[shape]
        started_ns = time.thread_time_ns()
        try:
            for name, array in feed.items():
                inputs[name].update_inplace(np.ascontiguousarray(array))
            self._session.run_with_iobinding(binding)
            # On the CPU this is the buffer itself, which the next run writes over.
            found: Float32Array = np.array(output.numpy())
        finally:
            self.compute_ns += time.thread_time_ns() - started_ns
        return found

    def _bind(self, feed: Feed) -> tuple[Any, dict[str, Any], Any]:
        from onnxruntime import OrtValue

        binding = self._session.io_binding()
        inputs = {
            name: OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype, self._device, 0)
            for name, array in feed.items()
        }
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        rows = len(next(iter(feed.values())))
        output = OrtValue.ortvalue_from_shape_and_type(
            (rows, self._columns), np.float32, self._device, 0
        )
        binding.bind_ortvalue_output(self._output, output)
        return binding, inputs, output


def runner(live: LiveSession, output: str, columns: int) -> Runner:
    """The runner that suits the provider of a session."""
    if live.provider == CUDA:
        return BoundRunner(live.session, output, columns)
    return PlainRunner(live.session, output)
