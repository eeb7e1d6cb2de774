"""silero's rearranged network with the memory that it reads and writes."""

from __future__ import annotations

import time
from typing import Any, Self

import numpy as np

from serd.inference.providers import Device, open_session
from serd.types import frame_samples
from serd.vad.silero_graph import STATE, STEPS, rearrange, window_samples

CALL_ROWS = 256
"""Most rows of one call, so that what it reads and writes stays in a core's cache: of 1500 rows a
frame costs 7.6 µs in calls of 256, where it costs 8.9 in a single one."""

_INPUTS = ("windows", "hidden", "cell")
_OUTPUTS = ("probability", "next_hidden", "next_cell")


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
