"""Where a model runs: choosing ONNX Runtime's execution provider and making sure of it.

ONNX Runtime goes on with the CPU when CUDA cannot be started, also with its fallback switched
off, and says so only in its own log. So serd looks for everything CUDA needs before it makes a
session, and asks the session afterwards what it really runs on. A user who asks for ``cuda`` gets
CUDA or a `DeviceError` that says what is missing; ``auto`` takes CUDA where it works and
otherwise keeps the reason why it does not.

Codes of `DeviceError`: ``device_unknown``, ``onnxruntime_missing``, ``two_onnxruntimes``,
``cuda_not_built``, ``cuda_no_driver``, ``cuda_no_device``, ``cuda_driver_outdated``,
``cuda_libraries_missing``, ``cuda_session_failed``, ``cuda_fell_back``.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from serd.errors import DeviceError, ModelError

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

_CUDNN = "libcudnn.so.9"
# TF32 keeps 10 bits of mantissa and the exhaustive search picks kernels by a race of timings:
# without them scores agree with the CPU's and are the same after every start.
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
TF32 = {"use_tf32": "1"}
CUDA_GRAPH = {"enable_cuda_graph": "1"}
"""Options of the CUDA provider that a session may be opened with besides."""
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
_HEAVY_OPS = frozenset({"Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul", "GRU", "LSTM", "RNN"})
_CUDA_ERROR_NO_DEVICE = 100


class Device(StrEnum):
    """The values of ``inference.device``."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Driver(NamedTuple):
    """What the NVIDIA driver says of itself (CUDA driver API).

    `version`: newest CUDA it supports, as (major, minor); `error`: code of cuInit, 0 if well;
    `devices`: GPUs that it shows to this process.
    """

    version: tuple[int, int]
    error: int
    devices: int


class Problem(NamedTuple):
    """Why CUDA cannot be used: a stable code, what is missing, what to do about it."""

    code: str
    missing: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.missing}; {self.remedy}"


class System(Protocol):
    """What the choice of a provider wants to know of the machine; tests give a fake."""

    def distributions(self) -> set[str]:
        """Which of ``onnxruntime`` and ``onnxruntime-gpu`` are installed."""
        ...

    def providers(self) -> Sequence[str]:
        """Providers that the installed runtime was built with."""
        ...

    def built_for(self) -> tuple[int, int] | None:
        """CUDA version that the runtime was built for, or None if it does not say."""
        ...

    def driver(self) -> Driver | None:
        """The NVIDIA driver, or None if there is none."""
        ...

    def missing_libraries(self) -> list[str]:
        """Load the CUDA libraries and cuDNN; names of those that are not there."""
        ...

    def session(self, model: Path | bytes, providers: Sequence[Any], threads: int) -> Any:
        """An `onnxruntime.InferenceSession` without fallback."""
        ...


@dataclass(frozen=True)
class LiveSession:
    """A session, the provider it really runs on and why that one.

    `provider` is ``CUDAExecutionProvider`` or ``CPUExecutionProvider``; `reason` is a phrase for
    the log, empty when the user asked for what they got; `reopen` opens the model once more with
    other options of the CUDA provider (raises what the runtime raises), None on the CPU.
    """

    session: Any
    provider: str
    reason: str
    reopen: Callable[[Mapping[str, str]], Any] | None = None


def open_session(
    model: Path | bytes, device: Device | str, threads: int = 1, system: System | None = None
) -> LiveSession:
    """Open an ONNX model on the device asked for.

    Parameters
    ----------
    model
        The ONNX file, or what would be in one.
    device
        ``auto``, ``cpu`` or ``cuda``.
    threads
        Threads for the operators of one run on the CPU, at least 1.
    system
        The machine; a fake in tests.

    Raises
    ------
    DeviceError
        CUDA was asked for and cannot be had, or the runtime is missing or installed twice.
    ModelError
        ``model_unreadable``: the runtime refuses the file itself.
    """
    try:
        device = Device(device)
    except ValueError:
        raise DeviceError(
            "device_unknown", f"device must be one of {', '.join(Device)}, not {device!r}"
        ) from None
    system = system or InstalledRuntime()
    _check_installation(system)
    if device is Device.CPU:
        return LiveSession(_cpu_session(system, model, threads), CPU, "")
    problem = find_cuda_problem(system)
    if problem is None:
        opened = _cuda_session(system, model, threads)
        if isinstance(opened, LiveSession):
            return opened
        problem = opened
    if device is Device.CUDA:
        raise DeviceError(problem.code, f'device "cuda" is not available: {problem}')
    return LiveSession(_cpu_session(system, model, threads), CPU, f"no CUDA: {problem.missing}")


def find_cuda_problem(system: System) -> Problem | None:
    """Why CUDA cannot work here, or None when all that it needs is there.

    Looked at in this order, so that the first thing to mend is named first: the runtime's build,
    the driver, its devices, its version, the CUDA libraries.
    """
    if CUDA not in system.providers():
        return Problem(
            "cuda_not_built",
            "the installed onnxruntime is built without CUDA",
            'pip uninstall onnxruntime, then pip install "serd[gpu]"',
        )
    driver = system.driver()
    if driver is None:
        return Problem(
            "cuda_no_driver",
            "the NVIDIA driver is missing (no libcuda.so.1)",
            "install it; in a container run with --gpus all and the NVIDIA container toolkit",
        )
    if driver.devices == 0:
        code = "" if driver.error in (0, _CUDA_ERROR_NO_DEVICE) else f" (error {driver.error})"
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hint = "" if visible is None else f" and CUDA_VISIBLE_DEVICES (it is {visible!r})"
        return Problem(
            "cuda_no_device",
            f"the NVIDIA driver shows no GPU{code}",
            f"check nvidia-smi{hint}",
        )
    built_for = system.built_for()
    # Within a major version a newer runtime works on an older driver:
    # https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
    if built_for is not None and driver.version[0] < built_for[0]:
        return Problem(
            "cuda_driver_outdated",
            f"the NVIDIA driver supports CUDA {_dotted(driver.version)}, "
            f"onnxruntime-gpu is built for {_dotted(built_for)}",
            f"update the driver or install an onnxruntime-gpu for CUDA {driver.version[0]}",
        )
    missing = system.missing_libraries()
    if missing:
        return Problem(
            "cuda_libraries_missing",
            f"{', '.join(missing)} cannot be loaded",
            'pip install "onnxruntime-gpu[cuda,cudnn]"',
        )
    return None


class InstalledRuntime:
    """`System` of the machine that serd runs on."""

    def distributions(self) -> set[str]:
        """Which of the two distributions have metadata in this environment."""
        found = set()
        for name in ("onnxruntime", "onnxruntime-gpu"):
            with contextlib.suppress(metadata.PackageNotFoundError):
                metadata.distribution(name)
                found.add(name)
        return found

    def providers(self) -> Sequence[str]:
        """Providers of the build, whether or not they can be started."""
        return tuple(_onnxruntime().get_available_providers())

    def built_for(self) -> tuple[int, int] | None:
        """CUDA version of the build."""
        return parse_version(str(getattr(_onnxruntime(), "cuda_version", "") or ""))

    def driver(self) -> Driver | None:
        """Ask the driver library itself; creates no CUDA context."""
        try:
            library = ctypes.CDLL("libcuda.so.1")
        except OSError:
            return None
        version, devices = ctypes.c_int(0), ctypes.c_int(0)
        error = int(library.cuInit(0))
        library.cuDriverGetVersion(ctypes.byref(version))
        if error == 0:
            error = int(library.cuDeviceGetCount(ctypes.byref(devices)))
        return Driver(
            (version.value // 1000, version.value % 1000 // 10), error, int(devices.value)
        )

    def missing_libraries(self) -> list[str]:
        """Load the libraries of the nvidia wheels or of the system; those that are not there."""
        runtime = _onnxruntime()
        said = io.StringIO()
        # It reports on standard output, where `serd replay --json` writes events and nothing else.
        with contextlib.redirect_stdout(said):
            runtime.preload_dlls()
        missing = parse_preload_report(said.getvalue())
        library = Path(runtime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
        candidates = [str(library)] if library.is_file() else []
        for candidate in (*candidates, _CUDNN):
            name = _why_not_loaded(candidate)
            if name is not None and name not in missing:
                missing.append(name)
        return missing

    def session(self, model: Path | bytes, providers: Sequence[Any], threads: int) -> Any:
        """A session with `threads` operator threads that do not spin between runs."""
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        # A plan of memory is made and kept for good for each shape that comes, and segments come
        # in any length, frames in any number of rows. Without plans runs take as long as with.
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        # Spinning workers burn a core between batches, which capture and detection need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry(_RECORD_ASSIGNMENT, "1")
        return runtime.InferenceSession(
            os.fspath(model), options, providers=list(providers), enable_fallback=False
        )


def parse_preload_report(report: str) -> list[str]:
    """Libraries that `onnxruntime.preload_dlls` printed as not loadable, each once, in order."""
    names = re.findall(r"^Failed to load (?:\S*/)?(lib[^\s/:]+)", report, re.MULTILINE)
    return list(dict.fromkeys(names))


def parse_version(text: str) -> tuple[int, int] | None:
    """``"13.0"`` as (13, 0); None for anything that does not begin like a version."""
    match = re.match(r"(\d+)(?:\.(\d+))?", text)
    return None if match is None else (int(match[1]), int(match[2] or 0))


def ops_by_provider(session: Any) -> dict[str, list[str]]:
    """Operator types by the provider that runs them; empty where the runtime cannot tell.

    Runtimes before 1.24 do not record the assignment.
    """
    # Any failure here means only that the runtime cannot tell; the caller has other evidence.
    try:
        subgraphs: Iterable[Any] = session.get_provider_graph_assignment_info()
    except Exception:
        return {}
    found: dict[str, list[str]] = {}
    for subgraph in subgraphs:
        ops = (str(node.op_type) for node in subgraph.get_nodes())
        found.setdefault(str(subgraph.ep_name), []).extend(ops)
    return found


def _check_installation(system: System) -> None:
    if len(system.distributions()) > 1:
        raise DeviceError(
            "two_onnxruntimes",
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            "pip uninstall onnxruntime onnxruntime-gpu, "
            'then pip install "serd[cpu]" or "serd[gpu]"',
        )


def _cpu_session(system: System, model: Path | bytes, threads: int) -> Any:
    # The runtime's exceptions share no base but Exception.
    try:
        return system.session(model, [CPU], threads)
    except DeviceError:
        raise
    except Exception as error:
        where = "a model in memory" if isinstance(model, bytes) else model
        raise ModelError("model_unreadable", f"{where}: onnxruntime: {error}") from error


def _cuda_session(system: System, model: Path | bytes, threads: int) -> LiveSession | Problem:
    def opened(options: Mapping[str, str]) -> Any:
        return system.session(model, [(CUDA, {**_CUDA_OPTIONS, **options}), CPU], threads)

    try:
        session = opened({})
    except Exception as error:
        # A file that the CPU refuses as well is the model's fault, not the device's.
        _cpu_session(system, model, threads)
        return Problem(
            "cuda_session_failed",
            f"onnxruntime cannot open the model on the GPU: {error}",
            "check free GPU memory with nvidia-smi",
        )
    live = list(session.get_providers())
    if not live or live[0] != CUDA:
        return Problem(
            "cuda_fell_back",
            f"onnxruntime fell back to {live[0] if live else 'nothing'}",
            "its own message on standard error says why",
        )
    ops = ops_by_provider(session)
    on_cpu = sorted(_HEAVY_OPS.intersection(ops.get(CPU, ())))
    if on_cpu and not _HEAVY_OPS.intersection(ops.get(CUDA, ())):
        return Problem(
            "cuda_fell_back",
            f"onnxruntime runs {', '.join(on_cpu)} on the CPU and nothing heavy on the GPU",
            "use a model whose operators the CUDA provider supports",
        )
    told = f"{', '.join(on_cpu)} on the CPU" if on_cpu else ""
    return LiveSession(session, CUDA, told, opened)


def _why_not_loaded(library: str) -> str | None:
    try:
        ctypes.CDLL(library)
    except OSError as error:
        # Symbols that ONNX Runtime itself resolves later are no missing library.
        found = re.match(r"([^\s/:]+): cannot open shared object file", str(error))
        return found[1] if found else None
    return None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _onnxruntime() -> Any:
    # Builds from 1.31 on report their use to their makers over the network unless told not to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            "onnxruntime_missing",
            f'onnxruntime cannot be imported ({error}); pip install "serd[cpu]" or "serd[gpu]"',
        ) from error
    return onnxruntime
