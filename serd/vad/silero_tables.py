"""silero's network on a device: the state of all rows stays there.

What goes up for a frame is its samples, 16 bits each, and the number of its row; what comes down is
a probability. The rows' states are taken from tables on the device and put back within the graph
(`serd.vad.silero_graph.rearrange_with_tables`). A graph's outputs cannot be its inputs, so there
are two of each table: a step reads one and leaves the other behind, with all rows in it, which at
50,000 rows is 25 MB copied by a memory of terabytes a second.

Calls come in a few sizes, so that each has its buffers and, with CUDA graphs, its recording. Rows
that only fill a call up are those of a row of their own, which nobody asks for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from serd.inference.device import DEVICE, MEMORY, DeviceRun, Lane, pin, place
from serd.inference.providers import CUDA, CUDA_GRAPH, Device, open_session
from serd.inference.trial import Trial, Way, better, like_speech
from serd.types import Float32Array, Int16Array, Int64Array, frame_samples
from serd.vad.silero_graph import STATE, rearrange_with_tables
from serd.vad.silero_network import RowNetwork

_SIZES = (16, 64, 256, 1024, 4096)
_TABLES = ("hidden", "cell")
_TRIAL_FRAMES = 12
_TRIAL_ROWS = 1024


class _Call(NamedTuple):
    """What a call of one size has: host and device memory, and a run from each pair of tables."""

    host: dict[str, np.ndarray[Any, Any]]
    device: dict[str, Any]
    probability: Any
    runs: tuple[DeviceRun, DeviceRun]


class SileroTables:
    """`serd.vad.silero_network.RowNetwork` with its state on a device. For one thread at a time.

    Parameters
    ----------
    session
        An open session of what `rearrange_with_tables` makes.
    sample_rate_hz, rows, context_samples
        Of the detector.
    device
        ``cuda``; with ``cpu`` the same path runs without a GPU.
    captured
        The session was opened with ``enable_cuda_graph``.

    Notes
    -----
    Every size is run when it is made, so that nothing is left to be made, or recorded, later.
    """

    def __init__(
        self,
        session: Any,
        sample_rate_hz: int,
        rows: int,
        context_samples: int,
        device: str = "cuda",
        captured: bool = False,
    ) -> None:
        self.compute_ns = 0
        self._session = session
        self._width = context_samples + frame_samples(sample_rate_hz)
        self._device = device
        self._captured = captured
        self._lane = Lane("serd-gpu-vad") if captured else None
        # The last row is that of the filling.
        self._keep = np.zeros((rows + 1, 1), np.float32)
        self._turn = 0
        enough = next((size for size in _SIZES if size >= rows), _SIZES[-1])
        self._sizes = [size for size in _SIZES if size <= enough]
        self._do(self._make)

    @property
    def call_rows(self) -> int:
        """See `RowNetwork`."""
        return self._sizes[-1]

    def step(self, rows: Int64Array, context: Int16Array, frames: Int16Array) -> Float32Array:
        """See `RowNetwork`."""
        count = len(rows)
        if not count:
            return np.empty(0, np.float32)
        size = next(size for size in self._sizes if size >= count)
        host = self._calls[size].host
        before = context.shape[1]
        host["samples"][:count, :before] = context
        host["samples"][:count, before:] = frames
        host["rows"][:count] = rows
        host["rows"][count:] = len(self._keep) - 1
        host["keep"][:count] = self._keep[rows]
        self._keep[rows] = 1.0
        found: Float32Array = self._do(partial(self._call, size))[:count, 0]
        return found

    def forget(self, rows: Int64Array) -> None:
        """See `RowNetwork`: their next step begins with zeros."""
        self._keep[rows] = 0.0

    def _do(self, work: Any) -> Any:
        return work() if self._lane is None else self._lane.do(work)

    def _make(self) -> None:
        with DEVICE.using():
            shape = (len(self._keep), STATE)
            pairs = [
                {name: place(shape, np.float32, self._device) for name in _TABLES} for _ in range(2)
            ]
            self._calls = {size: self._made(size, pairs) for size in self._sizes}
        for size in self._sizes:
            # Of the filling's row alone; once from either pair.
            self._calls[size].host["rows"][:] = len(self._keep) - 1
            for _ in range(2):
                self._call(size)

    def _made(self, size: int, pairs: list[dict[str, Any]]) -> _Call:
        host: dict[str, np.ndarray[Any, Any]] = {
            "samples": np.zeros((size, self._width), np.int16),
            "rows": np.zeros(size, np.int64),
            "keep": np.zeros((size, 1), np.float32),
        }
        device = {}
        for name, array in host.items():
            device[name] = place(array.shape, array.dtype, self._device)
            if self._device == "cuda":
                pin(array)
        probability = place((size, 1), np.float32, self._device)

        def run(before: Mapping[str, Any], after: Mapping[str, Any]) -> DeviceRun:
            outputs = {f"{name}_after": after[name] for name in _TABLES}
            outputs["probability"] = probability
            return DeviceRun(self._session, {**device, **before}, outputs, self._captured)

        first, second = pairs
        return _Call(host, device, probability, (run(first, second), run(second, first)))

    def _call(self, size: int) -> Float32Array:
        call = self._calls[size]
        run = call.runs[self._turn]
        began = time.thread_time_ns()
        try:
            with DEVICE.using():
                for name, array in call.host.items():
                    call.device[name].update_inplace(array)
            run.record()
            with DEVICE.using():
                run()
                # On the CPU this is the buffer itself, which the next call writes over.
                found: Float32Array = np.array(call.probability.numpy())
        finally:
            self.compute_ns += time.thread_time_ns() - began
        self._turn = 1 - self._turn
        return found


def quickest_network(
    plain: RowNetwork, published: bytes, sample_rate_hz: int, rows: int, context_samples: int
) -> RowNetwork:
    """The network on the GPU, with a CUDA graph where that helps, or `plain` where it is no better.

    Parameters
    ----------
    plain
        On the CPU, for the same rate and rows, all of whose state is zero; it is again afterwards.
    published
        The network's file.
    """
    count = min(rows, _TRIAL_ROWS)
    at = np.arange(count)
    size = frame_samples(sample_rate_hz)
    speech = like_speech(count, (_TRIAL_FRAMES + 1) * size, sample_rate_hz)

    def steps(network: RowNetwork) -> list[Float32Array]:
        network.forget(at)
        found = []
        for frame in range(1, _TRIAL_FRAMES + 1):
            start = frame * size
            context = speech[:, start - context_samples : start]
            frames = speech[:, start : start + size]
            # In calls of the network's own size; copied, for it may give its own memory.
            parts = range(0, count, network.call_rows)
            calls = [slice(first, first + network.call_rows) for first in parts]
            found.append(
                np.concatenate(
                    [network.step(at[call], context[call], frames[call]).copy() for call in calls]
                )
            )
        network.forget(at)
        return found

    model = rearrange_with_tables(published, sample_rate_hz, context_samples)

    def opened(options: Mapping[str, str], captured: bool) -> RowNetwork:
        live = open_session(model, Device.CUDA)
        assert live.reopen is not None, "a session on a GPU can be opened again"
        session = live.reopen(options) if options else live.session
        return SileroTables(session, sample_rate_hz, rows, context_samples, MEMORY[CUDA], captured)

    ways: list[Way[RowNetwork]] = [
        Way("detector on the GPU", lambda: opened({}, False)),
        Way("detector on the GPU with CUDA graph", lambda: opened(CUDA_GRAPH, True)),
    ]
    trial: Trial[RowNetwork] = Trial(steps, steps)
    return better(plain, ways, trial, f"silero-vad at {sample_rate_hz} Hz")
