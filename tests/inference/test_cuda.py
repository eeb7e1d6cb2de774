"""On a GPU: run by any `pytest` on a machine where CUDA works, skipped everywhere else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serd.errors import DeviceError
from serd.inference.device import pin
from serd.inference.manifest import (
    load_emotion_manifest,
    load_vad_manifest,
    resolve_model,
    verify_file,
    verify_unpadded_file,
)
from serd.inference.model import EmotionModel, calibrate
from serd.inference.providers import (
    CUDA,
    CUDA_GRAPH,
    TF32,
    InstalledRuntime,
    Problem,
    find_cuda_problem,
    open_session,
    ops_by_provider,
)
from serd.inference.runner import BoundRunner, PlainRunner
from serd.inference.trial import like_speech
from serd.inference.worker import SegmentJob
from serd.types import frame_samples
from serd.vad.silero_graph import rearrange_with_tables
from serd.vad.silero_network import SileroNetwork, SileroRows
from serd.vad.silero_tables import SileroTables
from tests.inference.tiny import LABELS, build_model, segments

TOLERANCE = 5e-3


@pytest.fixture(scope="module")
def problem() -> Problem | None:
    return find_cuda_problem(InstalledRuntime())


@pytest.fixture(scope="module")
def cuda(problem: Problem | None) -> None:
    if problem is not None:
        pytest.skip(f"no CUDA here: {problem.missing}")


def test_where_cuda_is_missing_it_is_refused_for_that_reason(
    tmp_path: Path, problem: Problem | None
) -> None:
    if problem is None:
        pytest.skip("CUDA is here")
    build_model(tmp_path)
    with pytest.raises(DeviceError) as caught:
        open_session(tmp_path / "tiny.onnx", "cuda")
    assert caught.value.code == problem.code
    assert problem.missing in caught.value.message


@pytest.mark.usefixtures("cuda")
class TestOnTheGpu:
    @pytest.mark.parametrize("device", ["auto", "cuda"])
    def test_the_heavy_operators_run_there(self, tmp_path: Path, device: str) -> None:
        build_model(tmp_path)
        live = open_session(tmp_path / "tiny.onnx", device)
        assert (live.provider, live.reason) == (CUDA, "")
        ops = ops_by_provider(live.session)
        assert not ops or {"Conv", "GRU", "MatMul"} <= set(ops[CUDA])

    @pytest.mark.parametrize("which", ["tiny", "serd-crnn"])
    def test_scores_are_the_cpu_s(self, tmp_path: Path, which: str) -> None:
        path = build_model(tmp_path) if which == "tiny" else resolve_model(which)
        on_gpu = EmotionModel.load(path, "cuda")
        on_cpu = EmotionModel.load(path, "cpu")
        on_gpu.warm_up()
        rng = np.random.default_rng(11)
        audio = np.zeros((40, on_gpu.samples), np.float32)
        pieces, length = segments(rng, 40)
        audio[:, : pieces.shape[1]] = pieces
        there, here = on_gpu.run(audio, length), on_cpu.run(audio, length)
        np.testing.assert_allclose(there, here, atol=TOLERANCE, rtol=0)
        alone = np.concatenate(
            [on_gpu.run(audio[row : row + 1], length[row : row + 1]) for row in range(40)]
        )
        np.testing.assert_allclose(there, alone, atol=TOLERANCE, rtol=0)

    @pytest.mark.parametrize("which", ["tiny", "serd-crnn"])
    def test_segments_of_either_rate_score_the_cpu_s(self, tmp_path: Path, which: str) -> None:
        path = build_model(tmp_path, unpadded=True) if which == "tiny" else resolve_model(which)
        rng = np.random.default_rng(13)
        on_gpu, on_cpu = (EmotionModel.load(path, device) for device in ("cuda", "cpu"))
        on_gpu.warm_up()
        longest = on_gpu.samples
        jobs = [
            SegmentJob((rng.standard_normal(samples) * 3000).astype(np.int16), rate, 0)
            for rate, samples in [(8000, longest // 2)] * 11
            + [(16000, longest)] * 6
            + [(8000, longest // 3), (16000, longest // 5)]
        ]
        np.testing.assert_allclose(on_gpu.score(jobs), on_cpu.score(jobs), atol=TOLERANCE, rtol=0)

    def test_buffers_on_the_device_change_nothing(self, tmp_path: Path) -> None:
        build_model(tmp_path)
        session = open_session(tmp_path / "tiny.onnx", "cuda").session
        plain, bound = PlainRunner(session, "logits"), BoundRunner(session, "logits", len(LABELS))
        rng = np.random.default_rng(14)
        for rows in (1, 8, 1, 8):
            audio, length = segments(rng, rows)
            feed = {"audio": audio, "length": length}
            np.testing.assert_allclose(bound.run(feed), plain.run(feed), atol=1e-5, rtol=0)

    def test_a_start_later_gives_the_same_scores(self, tmp_path: Path) -> None:
        path = build_model(tmp_path)
        audio, length = segments(np.random.default_rng(12), 9)
        first, second = (EmotionModel.load(path, "cuda").run(audio, length) for _ in range(2))
        np.testing.assert_allclose(first, second, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("options", [{}, TF32, CUDA_GRAPH, {**TF32, **CUDA_GRAPH}])
    def test_every_way_that_opens_is_right(self, options: dict[str, str]) -> None:
        manifest = load_emotion_manifest(resolve_model("serd-crnn"))
        path = verify_unpadded_file(manifest)
        assert path is not None
        live = open_session(path, "cuda")
        assert live.reopen is not None
        captured = "enable_cuda_graph" in options
        try:
            session = live.reopen(options)
            used = BoundRunner(session, "logits", len(manifest.labels), "cuda", captured)
            speech = like_speech(8, 24_000, 8000).astype(np.float32) / np.float32(32768)
            used.run({"audio": speech})
        except Exception as error:
            # The daemon goes on with the plain way then, see serd.inference.trial.
            pytest.skip(f"{options}: {error}")
        plain = PlainRunner(open_session(path, "cpu").session, "logits")
        temperature = manifest.calibration.temperature
        # More than once, and one size in between: what is played back is that of its size.
        for rows in (8, 2, 8, 2, 8):
            there, here = (
                calibrate(way.run({"audio": speech[::-1][:rows]}), temperature)
                for way in (used, plain)
            )
            np.testing.assert_allclose(there, here, atol=TOLERANCE, rtol=0)

    def test_two_threads_that_record_and_run_disturb_nobody(self) -> None:
        model = EmotionModel.load(resolve_model("serd-crnn"), "cuda", batch_sizes=(1, 8))
        twin = model.twin()
        model.warm_up()
        on_cpu = EmotionModel.load(resolve_model("serd-crnn"), "cpu")
        jobs = [SegmentJob(row, 8000, 0) for row in like_speech(8, 24_000, 8000)]
        expected = on_cpu.score(jobs)
        later = EmotionModel.load(resolve_model("serd-crnn"), "cuda", batch_sizes=(1, 8))
        with ThreadPoolExecutor(3) as threads:
            # A model that is exchanged while others run is opened and warmed up beside them.
            warmed = threads.submit(later.warm_up)
            found = [
                scores
                for _ in range(20)
                for scores in threads.map(lambda one: one.score(jobs), (model, twin))
            ]
            warmed.result()
        for scores in found:
            np.testing.assert_allclose(scores, expected, atol=TOLERANCE, rtol=0)

    @pytest.mark.parametrize("rate_hz", [8000, 16000])
    @pytest.mark.parametrize("captured", [False, True])
    def test_the_detector_s_state_on_the_device_is_the_cpu_s(
        self, rate_hz: int, captured: bool
    ) -> None:
        published = verify_file(load_vad_manifest(resolve_model("silero-vad"))).read_bytes()
        size, rows = frame_samples(rate_hz), 300
        context = size // 8
        live = open_session(rearrange_with_tables(published, rate_hz, context), "cuda")
        assert live.reopen is not None
        try:
            session = live.reopen(CUDA_GRAPH) if captured else live.session
            there = SileroTables(session, rate_hz, rows, context, "cuda", captured)
        except Exception as error:
            if not captured:
                raise
            pytest.skip(f"no recording: {error}")
        here = SileroRows(SileroNetwork.open(published, rate_hz, 1), rows)
        speech = like_speech(rows, 40 * size, rate_hz)
        rng = np.random.default_rng(15)
        for step in range(1, 40):
            at = rng.permutation(rows)[: rng.integers(1, 256)]
            frames = speech[at, step * size : (step + 1) * size]
            before = speech[at, step * size - context : step * size]
            np.testing.assert_allclose(
                there.step(at, before, frames), here.step(at, before, frames), atol=TOLERANCE
            )
            for network in (there, here):
                network.forget(at[:5])

    def test_memory_is_pinned_and_let_go(self) -> None:
        session = open_session(resolve_model("serd-vad").with_suffix(".onnx"), "cuda").session
        assert session.get_providers()[0] == CUDA
        for _ in range(3):
            assert pin(np.zeros((32, 24_000), np.float32))
