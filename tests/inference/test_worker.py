from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serd.errors import ModelError
from serd.inference.model import EmotionModel, Segment
from serd.inference.worker import (
    DropReason,
    InferenceWorker,
    Result,
    SegmentJob,
    WorkerOptions,
)
from serd.pulse import Pulse
from serd.types import Float32Array
from tests.fakes import FakeClock, wait_until
from tests.inference.tiny import SAMPLES, build_model

DEADLINE_S = 20.0
FOR_EVER_MS = 3_600_000.0


class FakeModel:
    """Scores a segment by its first sample; can be held, and fails on those that begin loud."""

    largest_batch = 64
    compute_ns = 0

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def score(self, segments: Sequence[Segment]) -> Float32Array:
        self.entered.release()
        assert self.gate.wait(DEADLINE_S)
        firsts = np.array([segment.audio[0] for segment in segments], np.int64)
        self.batches.append(firsts.tolist())
        self.compute_ns += 1000
        if (firsts >= 30000).any():
            raise ModelError("model_not_finite", "a loud row")
        return np.stack([firsts, -firsts], axis=1).astype(np.float32)


class Answers:
    """What came back, in order."""

    def __init__(self) -> None:
        self.batches: list[list[Result]] = []
        self.dropped: list[tuple[SegmentJob, str]] = []
        self._lock = threading.Lock()

    def on_results(self, results: list[Result]) -> None:
        with self._lock:
            self.batches.append(results)

    def on_dropped(self, job: SegmentJob, reason: DropReason) -> None:
        with self._lock:
            self.dropped.append((job, reason))

    @property
    def scored(self) -> list[int]:
        return [result.job.context for results in self.batches for result in results]

    @property
    def lost(self) -> list[tuple[int, str]]:
        return [(job.context, reason) for job, reason in self.dropped]


def job(number: int, samples: int = 4, sample_rate_hz: int = 16000) -> SegmentJob:
    return SegmentJob(np.full(samples, number, np.int16), sample_rate_hz, 0, number)


class WatchedClock:
    """Tells when the worker's thread looks at the time, which it does before every wait.

    It looks with its lock held and gives the lock up only by waiting: whoever has seen a look
    and then submits a job finds the thread asleep.
    """

    def __init__(self) -> None:
        self.looked = threading.Event()

    def monotonic_ns(self) -> int:
        if threading.current_thread().name == "serd-inference":
            self.looked.set()
        return time.monotonic_ns()

    def unix_ns(self) -> int:
        return time.time_ns()


class Bench:
    """A worker, its model and what came back."""

    def __init__(self, model: Any = None, **options: Any) -> None:
        self.model = model or FakeModel()
        self.answers = Answers()
        self.clock = WatchedClock()
        self.worker = InferenceWorker(
            [self.model],
            WorkerOptions(**options),
            on_results=self.answers.on_results,
            on_dropped=self.answers.on_dropped,
            clock=self.clock,
        )

    def hold(self) -> None:
        """Make the model stop inside its first batch, and wait until it is there."""
        self.model.gate.clear()
        self.worker.submit(job(0))
        self.worker.start()
        assert self.model.entered.acquire(timeout=DEADLINE_S)


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


class Held(FakeModel):
    """Stops inside a batch that begins with its number, until it is let go."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.held = threading.Event()
        self.let_go = threading.Event()

    def score(self, segments: Sequence[Segment]) -> Float32Array:
        if segments[0].audio[0] == self.number:
            self.held.set()
            assert self.let_go.wait(DEADLINE_S)
        return super().score(segments)


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


def test_results_that_are_no_numbers_are_counted(tmp_path: Path, make: Any) -> None:
    model = EmotionModel.load(build_model(tmp_path, poison=True), "cpu")
    bench = make(model, max_batch=1, max_wait_ms=0.0)
    bench.worker.start()
    bench.worker.submit(job(30000, samples=1000))
    assert bench.worker.drain(DEADLINE_S)
    assert bench.worker.counts()["inference_not_finite"] == 1
    assert bench.answers.batches == []


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
