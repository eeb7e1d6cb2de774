"""Draining and stopping."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.inference.worker_bench import (
    DEADLINE_S,
    FOR_EVER_MS,
    job,
)


def test_draining_runs_what_waits_for_company(make: Any) -> None:
    bench = make(max_batch=2, max_wait_ms=FOR_EVER_MS)
    bench.worker.start()
    for number in (1, 2, 3):
        bench.worker.submit(job(number))
    assert bench.worker.drain(DEADLINE_S)
    assert bench.answers.scored == [1, 2, 3]
    assert bench.worker.idle
    bench.worker.submit(job(4))
    assert not bench.worker.idle
    assert bench.worker.drain(DEADLINE_S)
    assert bench.answers.scored == [1, 2, 3, 4]


def test_draining_ends_in_time_when_the_model_hangs(make: Any) -> None:
    bench = make(max_wait_ms=0.0)
    bench.hold()
    assert not bench.worker.drain(0.01)
    assert not bench.worker.idle
    bench.model.gate.set()
    assert bench.worker.drain(DEADLINE_S)
    assert bench.answers.scored == [0]


def test_stopping_answers_for_what_waits(make: Any) -> None:
    bench = make(max_batch=8, max_wait_ms=FOR_EVER_MS)
    bench.worker.start()
    bench.worker.submit(job(1))
    bench.worker.submit(job(2))
    assert bench.worker.stop(DEADLINE_S)
    assert bench.answers.lost == [(1, "stopped"), (2, "stopped")]
    bench.worker.submit(job(3))
    assert bench.answers.lost[-1] == (3, "stopped")
    assert bench.worker.counts()["segments_dropped_stopped"] == 3


def test_stopping_gives_up_on_a_model_that_hangs_and_answers_once(make: Any) -> None:
    bench = make(max_wait_ms=0.0)
    bench.hold()
    bench.worker.submit(job(1))
    assert not bench.worker.stop(0.01)
    assert bench.answers.lost == [(0, "stopped"), (1, "stopped")]
    bench.model.gate.set()
    assert bench.worker.stop(DEADLINE_S)
    assert bench.answers.batches == []
    assert len(bench.answers.lost) == 2


def test_stopping_lets_the_running_batch_finish(make: Any) -> None:
    bench = make(max_wait_ms=0.0)
    bench.hold()
    opener = threading.Thread(target=bench.model.gate.set)
    opener.start()
    assert bench.worker.stop(DEADLINE_S)
    opener.join()
    assert bench.answers.scored == [0]
    assert bench.answers.lost == []


def test_stopping_a_worker_that_never_ran(make: Any) -> None:
    bench = make()
    bench.worker.submit(job(1))
    assert bench.worker.stop()
    assert bench.answers.lost == [(1, "stopped")]


def test_starting_twice_is_refused(make: Any) -> None:
    bench = make()
    bench.worker.start()
    with pytest.raises(RuntimeError, match="started already"):
        bench.worker.start()
