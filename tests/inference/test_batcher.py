from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serd.inference.batcher import Batcher

MS = 1_000_000


def test_a_full_batch_is_due_at_once() -> None:
    batcher: Batcher[str] = Batcher(capacity=10, max_batch=2, max_wait_ns=5 * MS)
    batcher.offer("a", 0)
    assert batcher.take(0) == []
    batcher.offer("b", 1)
    assert batcher.take(1) == ["a", "b"]
    assert batcher.take(1) == []


def test_the_oldest_item_sets_the_deadline() -> None:
    batcher: Batcher[str] = Batcher(capacity=10, max_batch=4, max_wait_ns=5 * MS)
    assert batcher.deadline_ns() is None
    batcher.offer("a", 1 * MS)
    batcher.offer("b", 4 * MS)
    assert batcher.deadline_ns() == 6 * MS
    assert batcher.take(6 * MS - 1) == []
    assert batcher.take(6 * MS) == ["a", "b"]


def test_what_a_batch_leaves_behind_keeps_its_own_deadline() -> None:
    batcher: Batcher[int] = Batcher(capacity=10, max_batch=2, max_wait_ns=5 * MS)
    for item in range(3):
        batcher.offer(item, item * MS)
    assert batcher.take(2 * MS) == [0, 1]
    assert batcher.deadline_ns() == 7 * MS


def test_a_full_queue_drops_its_oldest() -> None:
    batcher: Batcher[int] = Batcher(capacity=2, max_batch=2, max_wait_ns=MS)
    assert [batcher.offer(item, 0) for item in range(4)] == [None, None, 0, 1]
    assert (batcher.dropped, batcher.peak, len(batcher)) == (2, 2, 2)
    assert batcher.take(0) == [2, 3]


def test_flushing_makes_everything_due() -> None:
    batcher: Batcher[int] = Batcher(capacity=10, max_batch=2, max_wait_ns=1000 * MS)
    for item in range(3):
        batcher.offer(item, 0)
    batcher.flushing = True
    assert (batcher.take(0), batcher.take(0), batcher.take(0)) == ([0, 1], [2], [])


def test_a_batch_larger_than_the_queue_is_due_when_the_queue_is_full() -> None:
    batcher: Batcher[int] = Batcher(capacity=2, max_batch=8, max_wait_ns=1000 * MS)
    batcher.offer(0, 0)
    batcher.offer(1, 0)
    assert batcher.take(0) == [0, 1]


def test_clear_gives_back_what_waits() -> None:
    batcher: Batcher[int] = Batcher(capacity=4, max_batch=2, max_wait_ns=1000 * MS)
    for item in range(3):
        batcher.offer(item, 0)
    assert batcher.clear() == [0, 1, 2]
    assert (len(batcher), batcher.deadline_ns()) == (0, None)


@pytest.mark.parametrize("arguments", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_impossible_bounds_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        Batcher[int](*arguments)


@given(st.lists(st.integers(0, 9), max_size=12), st.sets(st.integers(0, 9)))
def test_what_is_withdrawn_is_given_back_and_the_others_keep_their_turn(
    items: list[int], unwanted: set[int]
) -> None:
    batcher: Batcher[int] = Batcher(capacity=20, max_batch=20, max_wait_ns=5 * MS)
    for at, item in enumerate(items):
        batcher.offer(item, at * MS)
    assert batcher.withdraw(unwanted.__contains__) == [n for n in items if n in unwanted]
    left = [(at, n) for at, n in enumerate(items) if n not in unwanted]
    assert batcher.deadline_ns() == (left[0][0] * MS + 5 * MS if left else None)
    assert batcher.take(1000 * MS) == [n for _, n in left]


@given(
    capacity=st.integers(1, 40),
    max_batch=st.integers(1, 10),
    max_wait_ns=st.integers(0, 20),
    gaps=st.lists(st.integers(0, 15), max_size=60),
)
def test_a_consumer_that_wakes_at_the_deadline_is_never_late(
    capacity: int, max_batch: int, max_wait_ns: int, gaps: list[int]
) -> None:
    batcher: Batcher[tuple[int, int]] = Batcher(capacity, max_batch, max_wait_ns)
    now_ns = 0
    offered: list[tuple[int, int]] = []
    taken: list[tuple[int, int]] = []

    def run_until(moment_ns: int) -> None:
        while (due_ns := batcher.deadline_ns()) is not None and due_ns <= moment_ns:
            batch = batcher.take(max(due_ns, now_ns))
            assert 1 <= len(batch) <= max_batch
            assert all(max(due_ns, now_ns) - at_ns <= max_wait_ns for _, at_ns in batch)
            taken.extend(batch)

    for number, gap in enumerate(gaps):
        run_until(now_ns + gap)
        now_ns += gap
        item = (number, now_ns)
        offered.append(item)
        assert batcher.offer(item, now_ns) is None
    run_until(now_ns + max_wait_ns)
    assert taken == offered
    assert (len(batcher), batcher.dropped) == (0, 0)


class BatcherMachine(RuleBasedStateMachine):
    """Any order of calls against the plainest model of the same promises."""

    CAPACITY, MAX_BATCH, MAX_WAIT_NS = 5, 3, 10

    def __init__(self) -> None:
        super().__init__()
        self.batcher: Batcher[int] = Batcher(self.CAPACITY, self.MAX_BATCH, self.MAX_WAIT_NS)
        self.waiting: deque[tuple[int, int]] = deque()
        self.now_ns = 0
        self.next_item = 0
        self.dropped = 0
        self.peak = 0

    @rule(step_ns=st.integers(0, 12))
    def pass_time(self, step_ns: int) -> None:
        self.now_ns += step_ns

    @rule()
    def offer(self) -> None:
        lost = self.batcher.offer(self.next_item, self.now_ns)
        if len(self.waiting) == self.CAPACITY:
            assert lost == self.waiting.popleft()[0]
            self.dropped += 1
        else:
            assert lost is None
        self.waiting.append((self.next_item, self.now_ns))
        self.peak = max(self.peak, len(self.waiting))
        self.next_item += 1

    @rule()
    def take(self) -> None:
        due = bool(self.waiting) and (
            self.batcher.flushing
            or len(self.waiting) >= self.MAX_BATCH
            or self.now_ns - self.waiting[0][1] >= self.MAX_WAIT_NS
        )
        count = min(self.MAX_BATCH, len(self.waiting)) if due else 0
        expected = [self.waiting.popleft()[0] for _ in range(count)]
        assert self.batcher.take(self.now_ns) == expected

    @rule(flushing=st.booleans())
    def set_flushing(self, flushing: bool) -> None:
        self.batcher.flushing = flushing

    @precondition(lambda self: self.waiting)
    @rule()
    def clear(self) -> None:
        assert self.batcher.clear() == [item for item, _ in self.waiting]
        self.waiting.clear()

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.batcher) == len(self.waiting)
        assert self.batcher.dropped == self.dropped
        assert self.batcher.peak == self.peak


TestBatcherMachine = BatcherMachine.TestCase
