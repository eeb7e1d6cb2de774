"""Several threads, several workers, and models that are swapped under way."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serd.inference.model import Segment
from serd.inference.worker import (
    InferenceWorker,
    WorkerOptions,
)
from serd.pulse import Pulse
from serd.types import Float32Array
from tests.fakes import wait_until
from tests.inference.worker_bench import (
    DEADLINE_S,
    FOR_EVER_MS,
    Answers,
    FakeModel,
    Held,
    job,
)


def test_two_threads_score_at_once_and_answer_everything_once() -> None:
    together = threading.Barrier(2)

    class Meeting(FakeModel):
        def score(self, segments: Sequence[Segment]) -> Float32Array:
            # Passes only if the other thread is inside its own model too.
            together.wait(DEADLINE_S)
            return super().score(segments)

    answers = Answers()
    worker = InferenceWorker(
        [Meeting(), Meeting()],
        WorkerOptions(max_batch=1, max_wait_ms=0.0),
        answers.on_results,
        answers.on_dropped,
    )
    for number in range(6):
        worker.submit(job(number))
    worker.start()
    assert worker.drain(DEADLINE_S)
    assert sorted(answers.scored) == list(range(6))
    assert worker.counts()["segments_scored"] == 6
    assert worker.stop(DEADLINE_S)
    assert worker.idle


@settings(max_examples=25)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 3))
def test_from_one_segment_on_all_are_scored_by_the_new_models(
    between: list[int], threads: int
) -> None:
    answers = Answers()
    worker = InferenceWorker(
        [FakeModel() for _ in range(threads)],
        WorkerOptions(max_batch=2, max_wait_ms=0.0),
        answers.on_results,
        answers.on_dropped,
        model=0,
    )
    worker.start()
    number = 0
    for generation, jobs in enumerate(between, start=1):
        for _ in range(jobs):
            worker.submit(job(number))
            number += 1
        worker.swap([FakeModel() for _ in range(threads)], generation)
    assert worker.drain(DEADLINE_S)
    assert worker.stop(DEADLINE_S)
    results = [result for results in answers.batches for result in results]
    assert sorted(result.job.context for result in results) == list(range(number))
    order = [result.model for result in sorted(results, key=lambda result: result.job.context)]
    assert order == sorted(order)
    assert worker.counts()["segments_scored"] == number


def test_a_running_batch_keeps_its_model_and_the_next_has_the_new_one(make: Any) -> None:
    bench = make(max_wait_ms=0.0)
    bench.hold()
    bench.worker.submit(job(1))
    bench.worker.swap([FakeModel()], "new")
    bench.model.gate.set()
    assert bench.worker.drain(DEADLINE_S)
    told = [(result.job.context, result.model) for (result,) in bench.answers.batches]
    assert told == [(0, None), (1, "new")]


def test_a_swap_takes_the_new_models_batches(make: Any) -> None:
    class Narrow(FakeModel):
        largest_batch = 2

    bench = make(max_batch=4, max_wait_ms=FOR_EVER_MS)
    narrow = Narrow()
    bench.worker.swap([narrow])
    bench.worker.start()
    for number in range(4):
        bench.worker.submit(job(number))
    assert bench.worker.drain(DEADLINE_S)
    assert narrow.batches == [[0, 1], [2, 3]]
    assert bench.worker.batch_sizes() == [0, 0, 2, 0, 0]
    bench.worker.swap([FakeModel()])
    for number in range(4):
        bench.worker.submit(job(number))
    assert bench.worker.drain(DEADLINE_S)
    assert bench.worker.batch_sizes() == [0, 0, 2, 0, 1]


def test_a_swap_needs_a_model_for_each_thread(make: Any) -> None:
    with pytest.raises(ValueError, match="2 models for 1 threads"):
        make().worker.swap([FakeModel(), FakeModel()])


def test_a_model_that_was_swapped_out_is_let_go() -> None:
    answers = Answers()
    old = FakeModel()
    forgotten = weakref.ref(old)
    worker = InferenceWorker(
        [old], WorkerOptions(max_wait_ms=0.0), answers.on_results, answers.on_dropped
    )
    worker.start()
    worker.submit(job(1))
    assert worker.drain(DEADLINE_S)
    before_ns = worker.compute_ns
    del old
    worker.swap([FakeModel()])
    # The thread may be on its way out of the round.
    wait_until(lambda: forgotten() is None, "the old model to be let go")
    assert worker.compute_ns == before_ns > 0
    assert worker.stop(DEADLINE_S)


def test_a_thread_that_hangs_keeps_its_batch_and_the_others_go_on() -> None:
    now_ns = 0
    pulse = Pulse(stuck_after_s=10.0, now_ns=lambda: now_ns)
    answers = Answers()
    models = [Held(7), Held(7)]
    worker = InferenceWorker(
        models,
        WorkerOptions(max_batch=1, max_wait_ms=0.0),
        answers.on_results,
        answers.on_dropped,
        pulse=pulse,
    )
    worker.start()
    worker.submit(job(7))
    wait_until(lambda: any(model.held.is_set() for model in models), "one thread to hang")
    for number in range(20, 40):
        worker.submit(job(number))
    wait_until(lambda: answers.scored == list(range(20, 40)), "the other thread's results")
    wait_until(lambda: list(pulse.ages().values()).count(0.0) == 2, "the other thread to wait")
    for _ in range(4):
        now_ns += 4_000_000_000
        pulse.look()
    [stuck] = pulse.stuck()
    assert stuck in ("inference-0", "inference-1")
    # Nor does it keep others from having another model.
    worker.swap([FakeModel(), FakeModel()], "new")
    worker.submit(job(50))
    wait_until(lambda: answers.scored[-1] == 50, "a result of the new model")
    assert not worker.stop(0.01)
    assert answers.lost == [(7, "stopped")]
    for model in models:
        model.let_go.set()
    assert worker.stop(DEADLINE_S)
    assert answers.scored == [*range(20, 40), 50]


def test_a_worker_gives_way_to_another_as_long_as_that_has_work(make: Any) -> None:
    first = make(max_wait_ms=0.0)
    first.hold()
    answers = Answers()
    second = InferenceWorker(
        [FakeModel()],
        WorkerOptions(queue_segments=2, max_wait_ms=0.0),
        answers.on_results,
        answers.on_dropped,
        first.clock,
        gives_way_to=first.worker,
    )
    looked = first.clock.looked
    second.start()
    for number in (1, 2, 3):
        second.submit(job(number))
    # It looks, finds the other at work, and looks again.
    for _ in range(3):
        looked.clear()
        assert looked.wait(DEADLINE_S)
    assert answers.scored == []
    assert answers.lost == [(1, "overload")]
    first.model.gate.set()
    wait_until(lambda: answers.scored == [2, 3], "its turn")
    assert second.stop(DEADLINE_S)
