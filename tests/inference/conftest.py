from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.inference.worker_bench import DEADLINE_S, Bench, FakeModel


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        if isinstance(bench.model, FakeModel):
            bench.model.gate.set()
        assert bench.worker.stop(DEADLINE_S)


@pytest.fixture
def make(benches: list[Bench]) -> Any:
    def make(model: Any = None, **options: Any) -> Bench:
        benches.append(Bench(model, **options))
        return benches[-1]

    return make
