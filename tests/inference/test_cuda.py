"""On a GPU: run by any `pytest` on a machine where CUDA works, skipped everywhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serd.errors import DeviceError
from serd.inference.manifest import resolve_model
from serd.inference.model import EmotionModel
from serd.inference.providers import (
    CUDA,
    InstalledRuntime,
    Problem,
    find_cuda_problem,
    open_session,
    ops_by_provider,
)
from serd.inference.runner import BoundRunner, PlainRunner
from serd.inference.worker import SegmentJob
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
