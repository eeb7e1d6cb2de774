"""The network whose state stays on the device, with the CPU for a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serd.inference import trial
from serd.inference.device import MEMORY
from serd.inference.manifest import load_vad_manifest, resolve_model, verify_file
from serd.inference.providers import CUDA, LiveSession, open_session
from serd.types import frame_samples
from serd.vad import silero_tables
from serd.vad.silero import SileroDetector
from serd.vad.silero_graph import rearrange_with_tables
from serd.vad.silero_network import SileroNetwork, SileroRows
from serd.vad.silero_tables import SileroTables, quickest_network
from tests.speech import demo_speech

Load = Callable[..., SileroDetector]
RATES = [8000, 16000]


@pytest.fixture
def published(silero: Load) -> bytes:
    """The network's file; `silero` skips where there is none."""
    return verify_file(load_vad_manifest(resolve_model("silero-vad"))).read_bytes()


def tables(published: bytes, rate_hz: int, rows: int, captured: bool = False) -> SileroTables:
    context = frame_samples(rate_hz) // 8
    model = rearrange_with_tables(published, rate_hz, context)
    session = open_session(model, "cpu").session
    return SileroTables(session, rate_hz, rows, context, "cpu", captured)


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("captured", [False, True])
def test_probabilities_are_those_of_the_state_on_the_cpu(
    published: bytes, rng: np.random.Generator, rate_hz: int, captured: bool
) -> None:
    rows, size = 70, frame_samples(rate_hz)
    there = tables(published, rate_hz, rows, captured)
    here = SileroRows(SileroNetwork.open(published, rate_hz, 1), rows)
    speech = demo_speech(rate_hz)
    heard = 0
    for _ in range(60):
        # Any number of rows in any order, so that calls of all sizes take turns.
        at = rng.permutation(rows)[: rng.integers(0, rows + 1)]
        starts = rng.integers(size, len(speech) - size, len(at))
        context = np.stack([speech[start - size // 8 : start] for start in [size, *starts]])[1:]
        frames = np.stack([speech[start : start + size] for start in [size, *starts]])[1:]
        if not len(at):
            assert there.step(at, context, frames).shape == (0,)
            continue
        found = there.step(at, context, frames)
        expected = here.step(at, context, frames)
        np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)
        heard += int(np.count_nonzero(expected > 0.5))
        forgotten = rng.permutation(rows)[: rng.integers(0, 10)]
        there.forget(forgotten)
        here.forget(forgotten)
    assert heard > 20
    assert there.compute_ns > 0


def test_calls_are_no_larger_than_the_rows_ask_for(published: bytes) -> None:
    assert tables(published, 8000, 1).call_rows == 16
    assert tables(published, 8000, 64).call_rows == 64
    assert tables(published, 8000, 65).call_rows == 256
    assert tables(published, 8000, 5000).call_rows == 4096


class Gpu:
    """Stands in for a GPU: the CPU under its name, with a say in what goes wrong."""

    def __init__(self, *, fails: Exception | None = None, quick: bool = True) -> None:
        self._fails = fails
        self.quick = quick

    def open(self, model: bytes, device: Any, threads: int = 1) -> LiveSession:
        if self._fails is not None:
            raise self._fails
        session = open_session(model, "cpu").session
        return LiveSession(session, CUDA, "", lambda options: session)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Gpu]:
    def install(**arguments: Any) -> Gpu:
        made = Gpu(**arguments)
        monkeypatch.setitem(MEMORY, CUDA, "cpu")
        monkeypatch.setattr(silero_tables, "open_session", made.open)
        durations = {SileroTables: 0.5 if made.quick else 2.0}
        monkeypatch.setattr(
            trial, "_duration_s", lambda opened, _: durations.get(type(opened), 1.0)
        )
        return made

    return install


def test_a_gpu_that_is_right_and_faster_is_used(
    published: bytes, gpu: Callable[..., Gpu], silero: Load
) -> None:
    gpu()
    detector = silero(8000, 40, provider=CUDA)
    assert isinstance(detector._network, SileroTables)
    plain = silero(8000, 40)
    speech = demo_speech(8000)
    frames = speech[: len(speech) // 256 * 256].reshape(-1, 256)
    frames[10:30] = 0
    at = np.arange(2)
    for first, second in zip(frames, frames[::-1], strict=True):
        both = np.stack([first, second])
        np.testing.assert_allclose(detector.step(at, both), plain.step(at, both), atol=2e-5, rtol=0)
    assert detector.gated == plain.gated > 0


@pytest.mark.parametrize("wrong", [{"quick": False}, {"fails": RuntimeError("CUDA failure 2")}])
def test_a_gpu_that_is_not_leaves_the_detector_on_the_cpu_as_it_was(
    published: bytes, gpu: Callable[..., Gpu], wrong: dict[str, Any]
) -> None:
    gpu(**wrong)
    plain = SileroRows(SileroNetwork.open(published, 8000, 1), 40)
    assert quickest_network(plain, published, 8000, 40, 32) is plain
    assert not plain._hidden.any()
    assert not plain._cell.any()


def test_a_gpu_that_hears_something_else_is_not_used(
    published: bytes, gpu: Callable[..., Gpu], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu()
    step = SileroTables.step

    def off(self: SileroTables, *arguments: Any) -> Any:
        return step(self, *arguments) + np.float32(0.01)

    monkeypatch.setattr(SileroTables, "step", off)
    plain = SileroRows(SileroNetwork.open(published, 8000, 1), 40)
    assert quickest_network(plain, published, 8000, 40, 32) is plain
