"""One run of a graph: plainly on the CPU, through buffers that stay on the device on a GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np

from serd.inference.device import DEVICE, MEMORY, DeviceRun, Lane, place
from serd.inference.providers import CUDA, CUDA_GRAPH, TF32, LiveSession
from serd.inference.trial import Trial, Way, better
from serd.types import Float32Array

Feed = Mapping[str, np.ndarray[Any, Any]]
Precision = Literal["float32", "tf32"]


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
    Two such runners in two threads copy for one batch while the other computes.

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
    captured
        The session was opened with ``enable_cuda_graph`` and is this runner's alone. Each shape is
        recorded at its first run, which all other users of the device wait for.

    Notes
    -----
    Buffers of a shape are kept for good, so the shapes ought to be few.
    """

    def __init__(
        self,
        session: Any,
        output: str,
        columns: int,
        device: str = "cuda",
        captured: bool = False,
    ) -> None:
        self.compute_ns = 0
        self._session = session
        self._output = output
        self._columns = columns
        self._device = device
        self._lane = Lane("serd-gpu") if captured else None
        self._bound: dict[tuple[int, ...], tuple[DeviceRun, dict[str, Any], Any]] = {}

    def run(self, feed: Feed) -> Float32Array:
        """See `Runner`."""
        if self._lane is None:
            return self._run(feed)
        return self._lane.do(partial(self._run, feed))

    def _run(self, feed: Feed) -> Float32Array:
        shape = tuple(size for array in feed.values() for size in array.shape)
        if shape not in self._bound:
            self._bound[shape] = self._bind(feed)
        run, inputs, output = self._bound[shape]
        started_ns = time.thread_time_ns()
        try:
            with DEVICE.using():
                for name, array in feed.items():
                    inputs[name].update_inplace(np.ascontiguousarray(array))
            run.record()
            with DEVICE.using():
                run()
                # On the CPU this is the buffer itself, which the next run writes over.
                found: Float32Array = np.array(output.numpy())
        finally:
            self.compute_ns += time.thread_time_ns() - started_ns
        return found

    def _bind(self, feed: Feed) -> tuple[DeviceRun, dict[str, Any], Any]:
        rows = len(next(iter(feed.values())))
        with DEVICE.using():
            inputs = {
                name: place(array.shape, array.dtype, self._device) for name, array in feed.items()
            }
            output = place((rows, self._columns), np.float32, self._device)
        captured = self._lane is not None
        run = DeviceRun(self._session, inputs, {self._output: output}, captured)
        return run, inputs, output


def runner(live: LiveSession, output: str, columns: int) -> Runner:
    """The runner that suits the provider of a session."""
    if live.provider == CUDA:
        return BoundRunner(live.session, output, columns, MEMORY[live.provider])
    return PlainRunner(live.session, output)


def quickest_runner(
    plain: Runner,
    live: LiveSession,
    output: str,
    columns: int,
    trial: Trial[Runner],
    precision: Precision,
    what: str,
) -> Runner:
    """The runner to serve with, of those that a session's provider has: see `serd.inference.trial`.

    Parameters
    ----------
    plain
        What `runner` gave for `live`.
    precision
        ``tf32``, the 10 bits of mantissa that float16 has and the range of float32, is taken where
        it is right, fast or not: a race must not decide over the digits of scores.
    what
        The graph's name, for the log.
    """
    reopen = live.reopen
    if live.provider != CUDA or reopen is None:
        return plain

    def way(name: str, options: Mapping[str, str], captured: bool, for_speed: bool) -> Way[Runner]:
        def opened() -> Runner:
            session = reopen(options)
            return BoundRunner(session, output, columns, MEMORY[CUDA], captured)

        return Way(name, opened, for_speed)

    options: Mapping[str, str] = {}
    best = plain
    if precision == "tf32":
        best = better(plain, [way("tf32", TF32, False, False)], trial, what)
        options = {} if best is plain else TF32
    graph = way("CUDA graph", {**options, **CUDA_GRAPH}, True, True)
    return better(best, [graph], trial, what)
