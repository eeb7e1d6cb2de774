from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime
import pytest

from serd.errors import DeviceError, ModelError
from serd.inference import providers
from serd.inference.providers import (
    CPU,
    CUDA,
    Driver,
    InstalledRuntime,
    open_session,
    ops_by_provider,
    parse_preload_report,
    parse_version,
)
from tests.inference.tiny import build_model

MODEL = Path("model.onnx")
CPU_WHEEL = "onnxruntime"
GPU_WHEEL = "onnxruntime-gpu"
WORKING = Driver((13, 1), 0, 1)


class Node(NamedTuple):
    op_type: str


class Subgraph(NamedTuple):
    ep_name: str
    ops: tuple[str, ...]

    def get_nodes(self) -> list[Node]:
        return [Node(op) for op in self.ops]


class FakeSession:
    def __init__(self, live: Sequence[str], subgraphs: Sequence[Subgraph] = ()) -> None:
        self._live = live
        self._subgraphs = subgraphs

    def get_providers(self) -> Sequence[str]:
        return self._live

    def get_provider_graph_assignment_info(self) -> Sequence[Subgraph]:
        return self._subgraphs


class FakeSystem:
    """A machine with a working GPU, unless told otherwise."""

    def __init__(
        self,
        *,
        distributions: set[str] | None = None,
        built: Sequence[str] = (CUDA, CPU),
        built_for: tuple[int, int] | None = (13, 0),
        driver: Driver | None = WORKING,
        missing: Sequence[str] = (),
        live: Sequence[str] = (CUDA, CPU),
        subgraphs: Sequence[Subgraph] = (),
        cuda_error: Exception | None = None,
        cpu_error: Exception | None = None,
    ) -> None:
        self._distributions = distributions or {GPU_WHEEL}
        self._built = built
        self._built_for = built_for
        self._driver = driver
        self._missing = list(missing)
        self._live = live
        self._subgraphs = subgraphs
        self._cuda_error = cuda_error
        self._cpu_error = cpu_error
        self.opened: list[list[str]] = []

    def distributions(self) -> set[str]:
        return self._distributions

    def providers(self) -> Sequence[str]:
        return self._built

    def built_for(self) -> tuple[int, int] | None:
        return self._built_for

    def driver(self) -> Driver | None:
        return self._driver

    def missing_libraries(self) -> list[str]:
        return self._missing

    def session(self, model: Path | bytes, providers: Sequence[Any], threads: int) -> FakeSession:
        names = [entry if isinstance(entry, str) else entry[0] for entry in providers]
        self.opened.append(names)
        wants_cuda = CUDA in names
        error = self._cuda_error if wants_cuda else self._cpu_error
        if error is not None:
            raise error
        return FakeSession(self._live if wants_cuda else [CPU], self._subgraphs)


WITHOUT_CUDA: list[tuple[str, Callable[[], FakeSystem], str, str]] = [
    (
        "cuda_not_built",
        lambda: FakeSystem(distributions={CPU_WHEEL}, built=[CPU]),
        "built without CUDA",
        'pip install "serd[gpu]"',
    ),
    ("cuda_no_driver", lambda: FakeSystem(driver=None), "no libcuda.so.1", "--gpus all"),
    (
        "cuda_no_device",
        lambda: FakeSystem(driver=Driver((13, 0), 100, 0)),
        "driver shows no GPU",
        "check nvidia-smi",
    ),
    (
        "cuda_no_device",
        lambda: FakeSystem(driver=Driver((13, 0), 803, 0)),
        "driver shows no GPU (error 803)",
        "check nvidia-smi",
    ),
    (
        "cuda_driver_outdated",
        lambda: FakeSystem(driver=Driver((12, 4), 0, 1)),
        "supports CUDA 12.4, onnxruntime-gpu is built for 13.0",
        "update the driver",
    ),
    (
        "cuda_libraries_missing",
        lambda: FakeSystem(missing=["libcublasLt.so.13", "libcudnn.so.9"]),
        "libcublasLt.so.13, libcudnn.so.9 cannot be loaded",
        'pip install "onnxruntime-gpu[cuda,cudnn]"',
    ),
    (
        "cuda_session_failed",
        lambda: FakeSystem(cuda_error=RuntimeError("out of memory")),
        "cannot open the model on the GPU: out of memory",
        "check free GPU memory",
    ),
    (
        "cuda_fell_back",
        lambda: FakeSystem(live=[CPU]),
        "fell back to CPUExecutionProvider",
        "standard error says why",
    ),
    (
        "cuda_fell_back",
        lambda: FakeSystem(
            subgraphs=[Subgraph(CUDA, ("Cast",)), Subgraph(CPU, ("GRU", "Conv", "Cast"))]
        ),
        "runs Conv, GRU on the CPU and nothing heavy on the GPU",
        "use a model",
    ),
]


@pytest.mark.parametrize(("code", "make", "missing", "remedy"), WITHOUT_CUDA)
def test_cuda_that_cannot_be_had_is_refused_with_what_is_missing(
    code: str, make: Callable[[], FakeSystem], missing: str, remedy: str
) -> None:
    with pytest.raises(DeviceError) as caught:
        open_session(MODEL, "cuda", system=make())
    assert caught.value.code == code
    assert missing in caught.value.message
    assert remedy in caught.value.message


@pytest.mark.parametrize(("code", "make", "missing", "remedy"), WITHOUT_CUDA)
def test_auto_takes_the_cpu_and_says_why(
    code: str, make: Callable[[], FakeSystem], missing: str, remedy: str
) -> None:
    live = open_session(MODEL, "auto", system=make())
    assert live.provider == CPU
    assert live.session.get_providers() == [CPU]
    assert live.reason.startswith("no CUDA: ")
    assert missing in live.reason


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_cuda_that_works_is_taken(device: str) -> None:
    live = open_session(MODEL, device, system=FakeSystem())
    assert (live.provider, live.reason) == (CUDA, "")


def test_heavy_operators_left_on_the_cpu_are_named() -> None:
    subgraphs = [Subgraph(CUDA, ("Conv",)), Subgraph(CPU, ("GRU", "Cast"))]
    live = open_session(MODEL, "cuda", system=FakeSystem(subgraphs=subgraphs))
    assert (live.provider, live.reason) == (CUDA, "GRU on the CPU")


def test_the_cpu_is_taken_without_a_look_at_the_gpu() -> None:
    system = FakeSystem(missing=["libcublasLt.so.13"])
    live = open_session(MODEL, "cpu", system=system)
    assert (live.provider, live.reason) == (CPU, "")
    assert system.opened == [[CPU]]


@pytest.mark.parametrize(
    ("built_for", "driver"),
    [(None, (12, 4)), ((13, 0), (13, 0)), ((12, 8), (13, 0)), ((13, 2), (13, 0))],
)
def test_a_driver_of_the_same_major_version_or_newer_will_do(
    built_for: tuple[int, int] | None, driver: tuple[int, int]
) -> None:
    system = FakeSystem(built_for=built_for, driver=Driver(driver, 0, 1))
    assert open_session(MODEL, "cuda", system=system).provider == CUDA


def test_hidden_devices_are_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES \\(it is '-1'\\)"):
        open_session(MODEL, "cuda", system=FakeSystem(driver=Driver((13, 0), 100, 0)))


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_two_runtimes_over_each_other_are_refused(device: str) -> None:
    system = FakeSystem(distributions={CPU_WHEEL, GPU_WHEEL})
    with pytest.raises(DeviceError, match="pip uninstall onnxruntime onnxruntime-gpu") as caught:
        open_session(MODEL, device, system=system)
    assert caught.value.code == "two_onnxruntimes"
    assert system.opened == []


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_a_file_that_no_device_takes_is_the_model_s_fault(device: str) -> None:
    broken = ValueError("Protobuf parsing failed")
    system = FakeSystem(cuda_error=broken, cpu_error=broken)
    with pytest.raises(ModelError, match=r"model\.onnx: onnxruntime: Protobuf") as caught:
        open_session(MODEL, device, system=system)
    assert caught.value.code == "model_unreadable"


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(DeviceError, match="auto, cpu, cuda, not 'gpu'") as caught:
        open_session(MODEL, "gpu", system=FakeSystem())
    assert caught.value.code == "device_unknown"


class TestInstalledRuntime:
    """The real runtime on the CPU, and the real look-ups with the loader replaced."""

    def test_a_real_session_on_the_cpu(self, tmp_path: Path) -> None:
        build_model(tmp_path)
        live = open_session(tmp_path / "tiny.onnx", "cpu", threads=1)
        assert live.session.get_providers() == [CPU]

    def test_a_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "no.onnx").write_bytes(b"\x00\x01 no model")
        with pytest.raises(ModelError, match=r"no\.onnx: onnxruntime: ") as caught:
            open_session(tmp_path / "no.onnx", "cpu")
        assert caught.value.code == "model_unreadable"

    @pytest.mark.skipif(
        CUDA in onnxruntime.get_available_providers(), reason="the runtime is built with CUDA"
    )
    def test_a_cpu_build_knows_that_it_has_no_cuda(self, tmp_path: Path) -> None:
        build_model(tmp_path)
        with pytest.raises(DeviceError) as caught:
            open_session(tmp_path / "tiny.onnx", "cuda")
        assert caught.value.code == "cuda_not_built"
        live = open_session(tmp_path / "tiny.onnx", "auto")
        assert live.provider == CPU
        assert "built without CUDA" in live.reason

    def test_the_assignment_of_operators_is_read(self, tmp_path: Path) -> None:
        build_model(tmp_path)
        ops = ops_by_provider(open_session(tmp_path / "tiny.onnx", "cpu").session)
        if not ops:
            pytest.skip("this runtime does not record the assignment")
        assert {"Conv", "GRU", "MatMul"} <= set(ops[CPU])

    def test_a_runtime_that_cannot_tell_is_believed(self) -> None:
        assert ops_by_provider(object()) == {}

    def test_the_installed_distribution_is_seen(self) -> None:
        assert InstalledRuntime().distributions() in ({CPU_WHEEL}, {GPU_WHEEL})

    def test_both_distributions_are_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metadata, "distribution", lambda name: name)
        assert InstalledRuntime().distributions() == {CPU_WHEEL, GPU_WHEEL}

    def test_a_missing_runtime_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(DeviceError, match=r'pip install "serd\[cpu\]"') as caught:
            open_session(MODEL, "auto")
        assert caught.value.code == "onnxruntime_missing"

    def test_the_driver_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Library:
            def cuInit(self, flags: int) -> int:  # noqa: N802 - CUDA's own name
                return 0

            def cuDriverGetVersion(self, out: Any) -> int:  # noqa: N802 - CUDA's own name
                out._obj.value = 12080
                return 0

            def cuDeviceGetCount(self, out: Any) -> int:  # noqa: N802 - CUDA's own name
                out._obj.value = 2
                return 0

        monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
        assert InstalledRuntime().driver() == Driver((12, 8), 0, 2)

    def test_no_driver_is_no_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ctypes, "CDLL", cannot_open)
        assert InstalledRuntime().driver() is None

    def test_missing_libraries_are_named_and_standard_output_stays_clean(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print(PRELOAD_REPORT))
        monkeypatch.setattr(ctypes, "CDLL", cannot_open)
        missing = InstalledRuntime().missing_libraries()
        assert missing[:2] == ["libcublasLt.so.13", "libcurand.so.10"]
        assert missing[-1] == "libcudnn.so.9"
        assert capfd.readouterr().out == ""

    def test_a_library_that_only_lacks_symbols_is_there(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lacks_symbol(name: str) -> None:
            raise OSError(f"{name}: undefined symbol: Provider_GetHost")

        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
        monkeypatch.setattr(ctypes, "CDLL", lacks_symbol)
        assert InstalledRuntime().missing_libraries() == []


def cannot_open(name: str) -> None:
    raise OSError(f"{Path(name).name}: cannot open shared object file: No such file or directory")


PRELOAD_REPORT = """\
Failed to load libcublasLt.so.13: libcublasLt.so.13: cannot open shared object file: No such file
Failed to load /opt/nvidia/cu13/lib/libcurand.so.10: libcurand.so.10: file too short
Failed to load libcurand.so.10: libcurand.so.10: cannot open shared object file: No such file
Please follow https://onnxruntime.ai/docs/install/#cuda-and-cudnn to install CUDA.
"""


def test_the_report_of_the_preload_is_read() -> None:
    assert parse_preload_report(PRELOAD_REPORT) == ["libcublasLt.so.13", "libcurand.so.10"]
    assert parse_preload_report("") == []


@pytest.mark.parametrize(
    ("text", "version"), [("13.0", (13, 0)), ("12", (12, 0)), ("", None), ("none", None)]
)
def test_versions_are_read(text: str, version: tuple[int, int] | None) -> None:
    assert parse_version(text) == version


def test_sessions_do_not_fall_back_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def session(path: str, options: Any, **kwargs: Any) -> FakeSession:
        seen.update(kwargs, threads=options.intra_op_num_threads)
        return FakeSession([CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    providers.InstalledRuntime().session(MODEL, [CPU], 3)
    assert seen == {"providers": [CPU], "enable_fallback": False, "threads": 3}
