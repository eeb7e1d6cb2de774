"""Runs whose inputs and outputs have a fixed place on a device, and what they take with CUDA.

A *captured* run is recorded once as a CUDA graph, all its launches, and then played back by a
single call (provider option ``enable_cuda_graph``, run option ``gpu_graph_id``:
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html). The runtime keeps
recordings by thread, allows one run of such a session at a time, and records in CUDA's global mode,
in which no other thread of the process may allocate or copy meanwhile. Hence `Lane`, a thread that
makes all runs of a session, and `Recording`, which keeps everybody else off the device.

All of it works on the CPU as well, where there is nothing to record.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from serd.threads import name_thread

T = TypeVar("T")

MEMORY = {"CUDAExecutionProvider": "cuda", "CPUExecutionProvider": "cpu"}
"""Where a provider wants what its runs read and write."""

# The runtime makes one run or two of its own kind first, which allocate, then it records; and it
# is the playing back that must work.
_RUNS_TO_RECORD = 4
_CUDA_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")


def place(shape: tuple[int, ...], dtype: Any, device: str) -> Any:
    """An `onnxruntime.OrtValue` of zeros at a fixed place on ``cpu`` or ``cuda``."""
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype), device, 0)


class Recording:
    """Who records a CUDA graph has the device for itself: many may use it, or one may record."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._recording = False

    @contextmanager
    def using(self) -> Iterator[None]:
        """For a run or a copy: waits while somebody records."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recording)
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For recording: waits until nobody uses the device."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recording)
            self._recording = True
            self._changed.wait_for(lambda: not self._users)
        try:
            yield
        finally:
            with self._changed:
                self._recording = False
                self._changed.notify_all()


DEVICE = Recording()
"""Of the process: CUDA's rule is about all its threads."""


class Lane:
    """A thread that does what it is given, in turn; it ends when the lane is let go."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        # The thread knows the queue alone, so that nothing keeps the lane but its users.
        # A daemon: a device that never answers must not keep the process alive.
        threading.Thread(target=_serve, args=(name, self._work), name=name, daemon=True).start()
        weakref.finalize(self, self._work.put, None)

    def do(self, work: Callable[[], T]) -> T:
        """The result of `work`, done on the lane's thread; raises what it raises."""
        answer: Future[T] = Future()
        self._work.put((work, answer))
        return answer.result()


def _serve(name: str, work: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]) -> None:
    name_thread(name)
    while (item := work.get()) is not None:
        do, answer = item
        try:
            answer.set_result(do())
        except BaseException as error:
            answer.set_exception(error)
        # Not until the next one comes: what it holds may be large, or hold the lane itself.
        del item, do, answer


class DeviceRun:
    """One run of a session, from and to fixed places.

    Parameters
    ----------
    session
        An open `onnxruntime.InferenceSession`.
    inputs, outputs
        What `place` gave, by name.
    captured
        Whether the session was opened with ``enable_cuda_graph``. The first call records, alone on
        the device; every call must come from the same thread.
    """

    _ids = itertools.count(1)

    def __init__(
        self,
        session: Any,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        captured: bool = False,
    ) -> None:
        self._session = session
        # On the CPU a place is the memory of an array, which a binding of older runtimes
        # does not keep.
        self._places = (inputs, outputs)
        self._binding = session.io_binding()
        for name, value in inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._options: Any = None
        self._recorded = not captured
        if captured:
            from onnxruntime import RunOptions

            self._options = RunOptions()
            self._options.add_run_config_entry("gpu_graph_id", str(next(self._ids)))

    def record(self) -> None:
        """Record the run, if that is to be done and has not been. Runs it several times."""
        if not self._recorded:
            with DEVICE.alone():
                for _ in range(_RUNS_TO_RECORD):
                    self._session.run_with_iobinding(self._binding, self._options)
            self._recorded = True

    def __call__(self) -> None:
        """Run; the outputs are there when it returns."""
        self._session.run_with_iobinding(self._binding, self._options)


def pin(array: np.ndarray[Any, Any]) -> bool:
    """Page-lock an array's memory while it lives, so that CUDA copies from it without a detour.

    Returns
    -------
    bool
        Whether that could be done. Copies work without, at some half of the speed.
    """
    runtime = _cuda_runtime()
    if runtime is None or not array.nbytes:
        return False
    address = ctypes.c_void_p(array.ctypes.data)
    if runtime.cudaHostRegister(address, ctypes.c_size_t(array.nbytes), ctypes.c_uint(0)):
        return False
    # Not at the interpreter's end, when CUDA may have gone before: the process gives all back.
    weakref.finalize(array, runtime.cudaHostUnregister, address).atexit = False
    return True


def _cuda_runtime() -> Any:
    # By the name under which the provider has loaded it: another one would have its own idea of
    # the process.
    for name in _CUDA_RUNTIMES:
        try:
            return ctypes.CDLL(name, mode=ctypes.RTLD_LOCAL | _NOLOAD)
        except OSError:
            continue
    return None


_NOLOAD = 4
"""RTLD_NOLOAD of glibc and musl, which Python does not name."""
