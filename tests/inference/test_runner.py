"""Both ways of running a graph, on the CPU, where the bound one has its buffers too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serd.inference.device import MEMORY
from serd.inference.manifest import load_emotion_manifest, verify_file, verify_unpadded_file
from serd.inference.model import EmotionModel
from serd.inference.providers import CPU, CUDA, CUDA_GRAPH, TF32, LiveSession, open_session
from serd.inference.runner import (
    BoundRunner,
    Feed,
    PlainRunner,
    Precision,
    Runner,
    quickest_runner,
    runner,
)
from serd.inference.trial import Trial, like_speech
from serd.inference.worker import SegmentJob
from tests.inference.tiny import LABELS, build_model, segments


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("runner")
    build_model(folder)
    return open_session(folder / "tiny.onnx", "cpu").session


def test_a_bound_run_gives_the_same_whatever_ran_before(
    session: Any, rng: np.random.Generator
) -> None:
    plain, bound = PlainRunner(session, "logits"), bind(session)
    kept: list[tuple[Any, Any]] = []
    for rows in (1, 4, 1, 3, 4):
        audio, length = segments(rng, rows)
        feed = {"audio": audio, "length": length}
        kept.append((plain.run(feed), bound.run(feed)))
    # Compared at the end: what was given back is the caller's own.
    for expected, found in kept:
        np.testing.assert_array_equal(found, expected)


def test_views_are_taken_too(session: Any, rng: np.random.Generator) -> None:
    audio, length = segments(rng, 4)
    backwards = {"audio": audio[::-1], "length": length[::-1]}
    expected = PlainRunner(session, "logits").run(backwards)
    np.testing.assert_array_equal(bind(session).run(backwards), expected)


def test_a_recorded_run_gives_the_same_from_any_thread(
    session: Any, rng: np.random.Generator
) -> None:
    recorded = BoundRunner(session, "logits", len(LABELS), "cpu", captured=True)
    plain = PlainRunner(session, "logits")
    feeds = []
    for rows in (1, 4, 1, 4, 2):
        audio, length = segments(rng, rows)
        feeds.append({"audio": audio, "length": length})
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(recorded.run, feeds))
    for feed, logits in zip(feeds, found, strict=True):
        np.testing.assert_array_equal(logits, plain.run(feed))


@pytest.mark.parametrize("kind", ["plain", "bound"])
def test_time_inside_the_runtime_is_counted(
    session: Any, rng: np.random.Generator, kind: str
) -> None:
    used: Runner = PlainRunner(session, "logits") if kind == "plain" else bind(session)
    audio, length = segments(rng, 8)
    assert used.compute_ns == 0
    used.run({"audio": audio, "length": length})
    first = used.compute_ns
    assert first > 0
    used.run({"audio": audio, "length": length})
    assert used.compute_ns > first


def test_time_of_a_run_that_fails_is_counted() -> None:
    class Broken:
        def run(self, outputs: Sequence[str], feed: Any) -> Any:
            sum(range(100_000))
            raise RuntimeError("broken")

    used = PlainRunner(Broken(), "logits")
    with pytest.raises(RuntimeError):
        used.run({})
    assert used.compute_ns > 0


@pytest.mark.parametrize(("provider", "kind"), [(CPU, PlainRunner), (CUDA, BoundRunner)])
def test_buffers_are_for_gpus(session: Any, provider: str, kind: type[Runner]) -> None:
    assert isinstance(runner(LiveSession(session, provider, ""), "logits", len(LABELS)), kind)


def bind(session: Any) -> BoundRunner:
    return BoundRunner(session, "logits", len(LABELS), "cpu")


class Cuda:
    """A session's provider as on a GPU, on the CPU; remembers what it was opened with."""

    def __init__(self, session: Any, *, broken: Sequence[str] = ()) -> None:
        self.asked: list[dict[str, str]] = []
        self._session = session
        self._broken = broken
        self.live = LiveSession(session, CUDA, "", self._reopen)

    def _reopen(self, options: Mapping[str, str]) -> Any:
        self.asked.append(dict(options))
        if any(name in options for name in self._broken):
            raise RuntimeError("not with these options")
        return self._session


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEMORY, CUDA, "cpu")


def settle(cuda: Cuda, feed: Feed, precision: Precision, quick: Sequence[str]) -> Runner:
    """`quickest_runner` by a clock on which runners of the named kinds are fast."""
    now = [0.0]

    def work(used: Runner) -> None:
        kind = "captured" if used._lane is not None else "plain"  # type: ignore[attr-defined]
        now[0] += 0.5 if kind in quick else 1.0

    trial: Trial[Runner] = Trial(lambda used: [used.run(feed)], work, lambda: now[0])
    plain = runner(cuda.live, "logits", len(LABELS))
    return quickest_runner(plain, cuda.live, "logits", len(LABELS), trial, precision, "tiny")


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("precision", "broken", "quick", "asked", "captured"),
    [
        ("float32", (), ("captured",), [CUDA_GRAPH], True),
        ("float32", (), (), [CUDA_GRAPH], False),
        ("float32", ("enable_cuda_graph",), ("captured",), [CUDA_GRAPH], False),
        ("tf32", (), ("captured",), [TF32, {**TF32, **CUDA_GRAPH}], True),
        ("tf32", ("use_tf32",), ("captured",), [TF32, CUDA_GRAPH], True),
    ],
)
def test_on_a_gpu_what_is_quickest_is_used(
    session: Any,
    rng: np.random.Generator,
    precision: Precision,
    broken: Sequence[str],
    quick: Sequence[str],
    asked: list[dict[str, str]],
    captured: bool,
) -> None:
    audio, length = segments(rng, 4)
    feed = {"audio": audio, "length": length}
    cuda = Cuda(session, broken=broken)
    used = settle(cuda, feed, precision, quick)
    assert cuda.asked == asked
    assert isinstance(used, BoundRunner)
    assert (used._lane is not None) is captured
    np.testing.assert_array_equal(used.run(feed), PlainRunner(session, "logits").run(feed))


def test_on_the_cpu_there_is_nothing_to_choose(session: Any) -> None:
    plain = PlainRunner(session, "logits")
    live = LiveSession(session, CPU, "")
    trial: Trial[Runner] = Trial(lambda used: [used.run({})], lambda used: None)
    assert quickest_runner(plain, live, "logits", len(LABELS), trial, "tf32", "tiny") is plain


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("unpadded", [False, True])
def test_a_model_settles_its_runs_and_its_twin_s(tmp_path: Path, unpadded: bool) -> None:
    manifest = load_emotion_manifest(build_model(tmp_path, unpadded=unpadded))
    plain = EmotionModel.load(tmp_path / "tiny.json", "cpu")
    path = verify_unpadded_file(manifest)
    graphs = [Cuda(open_session(verify_file(manifest), "cpu").session)]
    if path is not None:
        graphs.append(Cuda(open_session(path, "cpu").session))
    other = graphs[1].live if path is not None else None
    model = EmotionModel(manifest, graphs[0].live, (1, 4), other)
    twin = model.twin()
    model.warm_up()
    # Once for the model and once for its twin: a recording is of one session's alone.
    assert [graph.asked for graph in graphs] == [[CUDA_GRAPH] * 2] * len(graphs)
    speech = like_speech(3, model.samples // 2, 8000)
    jobs = [SegmentJob(row, 8000, 0) for row in speech]
    for one in (model, twin):
        np.testing.assert_allclose(one.score(jobs), plain.score(jobs), atol=1e-5, rtol=0)
        assert one.compute_ns > 0
