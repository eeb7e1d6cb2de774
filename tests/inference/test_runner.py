"""Both ways of running a graph, on the CPU, where the bound one has its buffers too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from serd.inference.providers import CPU, CUDA, LiveSession, open_session
from serd.inference.runner import BoundRunner, PlainRunner, Runner, runner
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
