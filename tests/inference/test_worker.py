"""Batches: what runs together, when, and what becomes of each segment."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serd.inference.model import EmotionModel, Segment
from serd.inference.worker import (
    InferenceWorker,
    Result,
    SegmentJob,
    WorkerOptions,
)
from serd.types import Float32Array
from tests.fakes import FakeClock, wait_until
from tests.inference.tiny import SAMPLES, build_model
from tests.inference.worker_bench import (
    DEADLINE_S,
    FOR_EVER_MS,
    Answers,
    Bench,
    FakeModel,
    job,
)


def test_a_full_batch_runs_without_waiting(make: Any) -> None:
    bench = make(max_batch=3, max_wait_ms=FOR_EVER_MS)
    bench.worker.start()
    for number in (1, 2, 3):
        bench.worker.submit(job(number))
    wait_until(lambda: bench.answers.scored == [1, 2, 3], "the batch")
    assert bench.model.batches == [[1, 2, 3]]
    (results,) = bench.answers.batches
    assert [result.batch for result in results] == [3, 3, 3]
    assert [result.probabilities.tolist() for result in results] == [[1, -1], [2, -2], [3, -3]]


def test_the_job_that_fills_a_batch_wakes_the_sleeping_thread(make: Any) -> None:
    bench = make(max_batch=2, max_wait_ms=FOR_EVER_MS)
    bench.worker.submit(job(1))
    bench.worker.start()
    assert bench.clock.looked.wait(DEADLINE_S)
    bench.worker.submit(job(2))
    wait_until(lambda: bench.model.batches == [[1, 2]], "the batch")


def test_after_a_drain_jobs_wait_for_company_again(make: Any) -> None:
    bench = make(max_batch=2, max_wait_ms=FOR_EVER_MS)
    bench.worker.start()
    assert bench.worker.drain(DEADLINE_S)
    for number in range(0, 40, 2):
        bench.clock.looked.clear()
        bench.worker.submit(job(number))
        assert bench.clock.looked.wait(DEADLINE_S)
        bench.worker.submit(job(number + 1))
    wait_until(lambda: len(bench.answers.scored) == 40, "the batches")
    assert [len(batch) for batch in bench.model.batches] == [2] * 20


def test_a_lone_job_runs_after_its_wait(make: Any) -> None:
    bench = make(max_batch=3, max_wait_ms=1.0)
    bench.worker.start()
    bench.worker.submit(job(1))
    wait_until(lambda: bench.answers.scored == [1], "the lone job")


def test_a_batch_is_no_larger_than_the_model_has_use_for(make: Any) -> None:
    class Narrow(FakeModel):
        largest_batch = 2

    bench = make(Narrow(), max_batch=32, max_wait_ms=FOR_EVER_MS)
    bench.worker.start()
    for number in range(5):
        bench.worker.submit(job(number))
    assert bench.worker.drain(DEADLINE_S)
    assert bench.model.batches == [[0, 1], [2, 3], [4]]


def test_overload_drops_the_oldest_that_waits(make: Any) -> None:
    bench = make(queue_segments=2, max_batch=2, max_wait_ms=0.0)
    bench.hold()
    for number in (1, 2, 3, 4):
        bench.worker.submit(job(number))
    assert bench.worker.queued == 2
    assert bench.answers.lost == [(1, "overload"), (2, "overload")]
    bench.model.gate.set()
    assert bench.worker.drain(DEADLINE_S)
    assert bench.answers.scored == [0, 3, 4]
    counts = bench.worker.counts()
    assert counts["segments_submitted"] == 5
    assert counts["segments_scored"] == 3
    assert counts["segments_dropped_overload"] == 2
    assert counts["queue_peak_segments"] == 2
    assert counts["batches"] == 2


def test_what_is_withdrawn_is_answered_as_dropped(make: Any) -> None:
    bench = make(queue_segments=8, max_batch=8, max_wait_ms=0.0)
    bench.hold()
    for number in (1, 2, 3, 4):
        bench.worker.submit(job(number))
    # The batch that is running keeps what it has.
    bench.worker.withdraw(lambda waiting: waiting.context in (0, 2, 4))
    assert bench.answers.lost == [(2, "overload"), (4, "overload")]
    bench.model.gate.set()
    assert bench.worker.drain(DEADLINE_S)
    assert bench.answers.scored == [0, 1, 3]
    assert bench.worker.counts()["segments_dropped_overload"] == 2
    assert (bench.worker.submitted, bench.worker.scored) == (5, 3)


def test_a_job_that_the_model_cannot_take_costs_no_other_its_result(make: Any) -> None:
    bench = make(max_batch=4, max_wait_ms=FOR_EVER_MS)
    bench.worker.start()
    for number in (1, 30000, 2, 30001):
        bench.worker.submit(job(number))
    assert bench.worker.drain(DEADLINE_S)
    assert bench.answers.scored == [1, 2]
    assert bench.answers.lost == [(30000, "model_error"), (30001, "model_error")]
    assert [result.batch for result in bench.answers.batches[0]] == [1, 1]
    assert bench.worker.counts()["inference_errors"] == 3
    bench.worker.submit(job(5))
    assert bench.worker.drain(DEADLINE_S)
    assert bench.answers.scored == [1, 2, 5]


def test_the_models_time_is_told(clock: FakeClock) -> None:
    model = FakeModel()
    answers = Answers()
    worker = InferenceWorker(
        [model], WorkerOptions(max_batch=2), answers.on_results, answers.on_dropped, clock
    )
    worker.submit(job(1))
    worker.submit(job(2))
    assert worker.compute_ns == 0
    worker.start()
    assert worker.drain(DEADLINE_S)
    assert worker.compute_ns == model.compute_ns > 0
    assert worker.stop(DEADLINE_S)


def test_a_callback_that_raises_does_not_stop_the_worker() -> None:
    seen: list[int] = []

    def on_results(results: list[Result]) -> None:
        seen.append(results[0].job.context)
        raise KeyError("a bug elsewhere")

    worker = InferenceWorker(
        [FakeModel()], WorkerOptions(max_wait_ms=0.0), on_results, lambda job, reason: None
    )
    worker.start()
    for number in (1, 2):
        worker.submit(job(number))
        assert worker.drain(DEADLINE_S)
    assert seen == [1, 2]
    assert worker.counts()["callback_errors"] == 2
    assert worker.stop(DEADLINE_S)


def test_times_come_from_the_clock(clock: FakeClock) -> None:
    class Slow(FakeModel):
        def score(self, segments: Sequence[Segment]) -> Float32Array:
            clock.advance(0.25)
            return super().score(segments)

    answers = Answers()
    worker = InferenceWorker(
        [Slow()], WorkerOptions(max_wait_ms=0.0), answers.on_results, answers.on_dropped, clock
    )
    clock.advance(3.0)
    worker.submit(job(1))
    worker.start()
    assert worker.drain(DEADLINE_S)
    assert worker.stop(DEADLINE_S)
    ((result,),) = answers.batches
    assert (result.started_ns, result.finished_ns) == (3_000_000_000, 3_250_000_000)


@settings(max_examples=25)
@given(
    submitters=st.integers(1, 4),
    jobs=st.integers(1, 60),
    queue_segments=st.integers(1, 40),
    max_batch=st.integers(1, 8),
    bad_every=st.integers(2, 12),
)
def test_every_job_is_answered_exactly_once(
    submitters: int, jobs: int, queue_segments: int, max_batch: int, bad_every: int
) -> None:
    bench = Bench(queue_segments=queue_segments, max_batch=max_batch, max_wait_ms=0.1)
    bench.worker.start()

    def submit(first: int) -> None:
        for number in range(first, first + jobs):
            bench.worker.submit(job(number + 30000 * (number % bad_every == 0)))

    threads = [
        threading.Thread(target=submit, args=(index * 100 + 1,)) for index in range(submitters)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bench.worker.drain(DEADLINE_S)
    assert bench.worker.stop(DEADLINE_S)
    answered = bench.answers.scored + [number for number, _ in bench.answers.lost]
    assert len(answered) == len(set(answered)) == submitters * jobs
    for index in range(submitters):
        mine = [number for number in bench.answers.scored if number // 100 == index]
        assert mine == sorted(mine)
    counts = bench.worker.counts()
    assert counts["segments_submitted"] == submitters * jobs
    assert counts["segments_scored"] == len(bench.answers.scored)
    assert counts["segments_scored"] + len(bench.answers.lost) == counts["segments_submitted"]
    assert max((len(batch) for batch in bench.model.batches), default=0) <= max_batch


def test_with_a_real_model_the_same_segment_scores_the_same(
    tmp_path: Path, make: Any, rng: np.random.Generator
) -> None:
    model = EmotionModel.load(build_model(tmp_path), "cpu")
    model.warm_up()
    bench = make(model, max_batch=8, max_wait_ms=FOR_EVER_MS)
    bench.worker.start()
    speech = (rng.standard_normal(SAMPLES // 2) * 3000).astype(np.int16)
    for number in range(21):
        noise = (rng.standard_normal(rng.integers(1, SAMPLES)) * 2000).astype(np.int16)
        bench.worker.submit(
            SegmentJob(speech, 8000, 0, -1) if number % 5 == 0 else SegmentJob(noise, 16000, 0, 0)
        )
    assert bench.worker.drain(DEADLINE_S)
    same = [
        result.probabilities
        for results in bench.answers.batches
        for result in results
        if result.job.context == -1
    ]
    assert len(same) == 5
    assert sum(len(results) for results in bench.answers.batches) == 21
    for scores in same[1:]:
        np.testing.assert_allclose(scores, same[0], atol=1e-5, rtol=0)


def test_nan_of_a_real_model_stays_with_its_row(tmp_path: Path, make: Any) -> None:
    model = EmotionModel.load(build_model(tmp_path, poison=True), "cpu")
    bench = make(model, max_batch=3, max_wait_ms=FOR_EVER_MS)
    bench.worker.start()
    for number in (100, 30000, 200):
        bench.worker.submit(job(number, samples=1000))
    assert bench.worker.drain(DEADLINE_S)
    assert bench.answers.scored == [100, 200]
    assert bench.answers.lost == [(30000, "model_error")]


def test_a_segment_that_does_not_fit_a_real_model_costs_no_other_its_result(
    tmp_path: Path, make: Any
) -> None:
    bench = make(
        EmotionModel.load(build_model(tmp_path), "cpu"), max_batch=4, max_wait_ms=FOR_EVER_MS
    )
    bench.worker.start()
    for number, samples in ((1, SAMPLES), (2, SAMPLES + 1), (3, 0), (4, 1)):
        bench.worker.submit(job(number, samples))
    assert bench.worker.drain(DEADLINE_S)
    assert bench.answers.scored == [1, 4]
    assert bench.answers.lost == [(2, "model_error"), (3, "model_error")]


def test_results_that_are_no_numbers_are_counted(tmp_path: Path, make: Any) -> None:
    model = EmotionModel.load(build_model(tmp_path, poison=True), "cpu")
    bench = make(model, max_batch=1, max_wait_ms=0.0)
    bench.worker.start()
    bench.worker.submit(job(30000, samples=1000))
    assert bench.worker.drain(DEADLINE_S)
    assert bench.worker.counts()["inference_not_finite"] == 1
    assert bench.answers.batches == []
