"""silero's rearranged network with the memory that it reads and writes."""

from __future__ import annotations

import time
from typing import Any, Protocol, Self

import numpy as np

from serd.inference.providers import Device, open_session
from serd.types import Float32Array, Int16Array, Int64Array, frame_samples
from serd.vad.silero_graph import STATE, STEPS, rearrange, window_samples

CALL_ROWS = 256
"""Most rows of one call, so that what it reads and writes stays in a core's cache: of 1500 rows a
frame costs 7.6 µs in calls of 256, where it costs 8.9 in a single one."""

_INPUTS = ("windows", "hidden", "cell")
_OUTPUTS = ("probability", "next_hidden", "next_cell")


class RowNetwork(Protocol):
    """silero's network with the state of a number of rows.

    `call_rows`: most rows of one step; `compute_ns`: see `serd.vad.detector.Detector`.
    """

    @property
    def call_rows(self) -> int: ...  # noqa: D102  described in the class
    @property
    def compute_ns(self) -> int: ...  # noqa: D102

    def step(self, rows: Int64Array, context: Int16Array, frames: Int16Array) -> Float32Array:
        """Probabilities float32[n] of frames int16[n, frame] after their context int16[n, c]."""
        ...

    def forget(self, rows: Int64Array) -> None:
        """Set the state of `rows` to zero."""
        ...


class SileroNetwork:
    """A session, bound to arrays that the caller fills and reads.

    Parameters
    ----------
    session
        onnxruntime session, on the CPU, of what `rearrange` makes for the rate.
    sample_rate_hz
        8000 or 16000.

    Attributes
    ----------
    windows
        float32 [CALL_ROWS, 4, window], samples as 16-bit numbers; see `rearrange`.
    hidden, cell, next_hidden, next_cell
        float32 [CALL_ROWS, 128].
    probability
        float32 [CALL_ROWS, 1].
    compute_ns
        See `Detector`.
    """

    def __init__(self, session: Any, sample_rate_hz: int) -> None:
        window = window_samples(frame_samples(sample_rate_hz))
        self.windows = np.zeros((CALL_ROWS, STEPS, window), np.float32)
        self.hidden, self.cell, self.next_hidden, self.next_cell = (
            np.zeros((CALL_ROWS, STATE), np.float32) for _ in range(4)
        )
        self.probability = np.zeros((CALL_ROWS, 1), np.float32)
        self.compute_ns = 0
        self._session = session
        self._bindings: dict[int, Any] = {}

    @classmethod
    def open(cls, published: bytes, sample_rate_hz: int, threads: int) -> Self:
        """The published network's file, rearranged for the rate, with so many threads.

        Raises
        ------
        DeviceError
            onnxruntime is missing or installed twice.
        """
        model = rearrange(published, sample_rate_hz)
        return cls(open_session(model, Device.CPU, threads).session, sample_rate_hz)

    def run(self, count: int) -> None:
        """One step of the first `count` rows of the arrays."""
        binding = self._bindings.get(count)
        if binding is None:
            binding = self._bindings[count] = self._bind(count)
        began = time.thread_time_ns()
        self._session.run_with_iobinding(binding)
        self.compute_ns += time.thread_time_ns() - began

    def _bind(self, count: int) -> Any:
        # Bound ahead, one binding a size, a call costs 20 % less at 1 row, 8 % at 32 and 5 % at
        # 256 than with arrays handed over.
        binding = self._session.io_binding()
        for names, bind in ((_INPUTS, binding.bind_input), (_OUTPUTS, binding.bind_output)):
            for name in names:
                array = getattr(self, name)[:count]
                shape = [count * STEPS, array.shape[2]] if name == "windows" else list(array.shape)
                bind(name, "cpu", 0, np.float32, shape, array.ctypes.data)
        return binding


class SileroRows:
    """`RowNetwork` on the CPU: the state lies in two tables, of which a step takes its rows."""

    call_rows = CALL_ROWS

    def __init__(self, network: SileroNetwork, rows: int) -> None:
        self._network = network
        self._hidden = np.zeros((rows, STATE), np.float32)
        self._cell = np.zeros((rows, STATE), np.float32)

    @property
    def compute_ns(self) -> int:
        """See `RowNetwork`."""
        return self._network.compute_ns

    def step(self, rows: Int64Array, context: Int16Array, frames: Int16Array) -> Float32Array:
        """See `RowNetwork`; the result lies in the network's memory."""
        network, count = self._network, len(rows)
        windows = network.windows[:count]
        before, window = context.shape[1], windows.shape[2]
        windows[:, 0, :before] = context
        windows[:, 0, before:] = frames[:, : window - before]
        for step in range(1, STEPS):
            start = step * window // 2 - before
            piece = frames[:, start : start + window]
            windows[:, step, : piece.shape[1]] = piece
        # The last window reaches beyond the frame, into its mirror image.
        windows[:, -1, -before:] = frames[:, -2 : -2 - before : -1]

        # take with mode "clip" writes straight into `out`; "raise" goes through a copy.
        self._hidden.take(rows, 0, network.hidden[:count], "clip")
        self._cell.take(rows, 0, network.cell[:count], "clip")
        network.run(count)
        self._hidden[rows] = network.next_hidden[:count]
        self._cell[rows] = network.next_cell[:count]
        return network.probability[:count, 0]

    def forget(self, rows: Int64Array) -> None:
        """See `RowNetwork`."""
        self._hidden[rows] = 0
        self._cell[rows] = 0
