"""The subscriber beside a journal: every event once and in order, whoever was away."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from serd.client import Item, Missed, Restarted, Subscriber
from tests.client.test_client import PATIENCE_S, cursors, take
from tests.fakes import FakeClock, wait_until
from tests.protocol import examples as make
from tests.sinks.harness import Context, Running, running
from tests.sinks.journal.journalled import journal_of, journalled

RUNS = [f"{number:016x}" for number in range(10)]
ANY_PORT = "tcp://127.0.0.1:*"
TOPICS: list[Sequence[str]] = [[""], ["emotion.", "emotion.a", "speech.b"]]


def told(items: Sequence[Item]) -> list[Item]:
    return [item for item in items if isinstance(item, Missed | Restarted)]


@pytest.mark.parametrize("topics", TOPICS)
def test_the_end_of_a_run_is_fetched_from_the_next(
    zmq_context: Context, tmp_path: Path, topics: Sequence[str]
) -> None:
    path, clock = tmp_path / "j", FakeClock()
    with journalled(zmq_context, path, run_id=RUNS[0], clock=clock) as daemon:
        endpoint, replay, first = daemon.endpoint, daemon.replay, journal_of(daemon).first
        subscriber = Subscriber(endpoint, topics, replay=replay, context=zmq_context)
        daemon.publish(make.emotion("a"))
        assert cursors(take(subscriber, 1)) == [first]
        # Published while the subscriber does not look, and more than are kept in memory.
        daemon.publish(*(make.emotion("a") for _ in range(2500)))
    clock.advance(1)
    with (
        subscriber,
        journalled(
            zmq_context, path, run_id=RUNS[1], clock=clock, bind=endpoint, replay_bind=replay
        ) as daemon,
    ):
        second = journal_of(daemon).first
        daemon.publish(*(make.emotion("a") for _ in range(20)))
        items = take(subscriber, 2521)
        assert cursors(items) == [
            *range(first + 1, first + 2501),
            *range(second, second + 20),
        ]
        assert told(items) == [Restarted(RUNS[1], RUNS[0], first + 2500, continues=True)]


@pytest.mark.parametrize("topics", TOPICS)
def test_a_long_absence_over_many_runs(
    zmq_context: Context, tmp_path: Path, topics: Sequence[str]
) -> None:
    path, clock = tmp_path / "j", FakeClock()
    wanted: list[int] = []
    for run_id in RUNS:
        clock.advance(1)
        with journalled(zmq_context, path, run_id=run_id, clock=clock) as daemon:
            daemon.publish(*(make.emotion("a") for _ in range(300)))
            first = journal_of(daemon).first
            wanted += range(first, first + 300)
            if run_id != RUNS[-1]:
                continue
            with Subscriber(
                daemon.endpoint, topics, replay=daemon.replay, after=0, context=zmq_context
            ) as subscriber:
                seen: list[int] = []
                while len(seen) < 1234:
                    seen += cursors(take(subscriber, 1))
                last = subscriber.last_id
            with Subscriber(
                daemon.endpoint, topics, replay=daemon.replay, after=last, context=zmq_context
            ) as subscriber:
                items = take(subscriber, len(wanted) - 1234 + 5)
                assert seen + cursors(items) == wanted
                assert [type(item) for item in told(items)] == [Restarted] * 5
                daemon.publish(make.emotion("a"))
                assert cursors(take(subscriber, 1)) == [wanted[-1] + 1]


def test_without_replay_only_the_restart_is_known(zmq_context: Context, tmp_path: Path) -> None:
    clock = FakeClock()
    with journalled(zmq_context, tmp_path / "j", run_id=RUNS[0], clock=clock) as daemon:
        endpoint, first = daemon.endpoint, journal_of(daemon).first
        subscriber = Subscriber(endpoint, context=zmq_context)
        wait_until(lambda: daemon.subscriptions() == 1, "the subscription")
        daemon.publish(make.emotion("a"))
        assert cursors(take(subscriber, 1)) == [first]
    clock.advance(1)
    with (
        subscriber,
        journalled(
            zmq_context, tmp_path / "j", run_id=RUNS[1], clock=clock, bind=endpoint
        ) as daemon,
    ):
        # A SUB socket subscribes anew when its program next looks at it.
        wait_until(
            lambda: subscriber.receive(0) is None and daemon.subscriptions() == 1,
            "the subscription",
        )
        second = journal_of(daemon).first
        daemon.publish(make.emotion("a"))
        missed, restarted, event = take(subscriber, 3)
        assert missed == Missed(None, None, first, second)
        assert restarted == Restarted(RUNS[1], RUNS[0], first, continues=True)
        assert cursors([event]) == [second]


@pytest.mark.parametrize(("topics", "number"), [([""], 499), (["emotion."], None)])
def test_what_the_journal_no_longer_has_is_told_in_its_place(
    zmq_context: Context, tmp_path: Path, topics: Sequence[str], number: int | None
) -> None:
    clock = FakeClock()
    with journalled(zmq_context, tmp_path / "j", run_id=RUNS[0], clock=clock, ttl_h=1) as daemon:
        daemon.publish(*(make.emotion("a") for _ in range(500)))
        first = journal_of(daemon).first
        clock.advance(3700)
        daemon.publish(*(make.emotion("a") for _ in range(20)))
        wait_until(lambda: journal_of(daemon).counts()["expired"] == 500, "the old to be forgotten")
        with Subscriber(
            daemon.endpoint, topics, replay=daemon.replay, after=first, context=zmq_context
        ) as subscriber:
            missed, *events = take(subscriber, 21)
            assert missed == Missed(number, None, first, first + 500)
            assert cursors(events) == list(range(first + 500, first + 520))


def test_a_journal_that_was_taken_away_is_told_as_unknown(
    zmq_context: Context, tmp_path: Path
) -> None:
    clock = FakeClock()
    with journalled(zmq_context, tmp_path / "j", run_id=RUNS[0], clock=clock) as daemon:
        daemon.publish(*(make.emotion("a") for _ in range(5)))
        last = daemon.publisher.last_cursor
    for file in tmp_path.iterdir():
        file.unlink()
    clock.advance(1)
    with journalled(zmq_context, tmp_path / "j", run_id=RUNS[1], clock=clock) as daemon:
        daemon.publish(make.emotion("a"))
        first = journal_of(daemon).first
        with Subscriber(
            daemon.endpoint,
            replay=daemon.replay,
            after=f"{RUNS[0]}-{last}",
            context=zmq_context,
        ) as subscriber:
            missed, restarted, event = take(subscriber, 3)
        assert missed == Missed(None, None, last, first)
        assert isinstance(restarted, Restarted)
        assert cursors([event]) == [first]


@pytest.mark.parametrize("journal_first", [True, False])
def test_a_daemon_that_gains_or_loses_its_journal(
    zmq_context: Context, tmp_path: Path, journal_first: bool
) -> None:
    def start(
        with_journal: bool, run_id: str, bind: str = ANY_PORT, replay_bind: str = ANY_PORT
    ) -> AbstractContextManager[Running]:
        if with_journal:
            return journalled(
                zmq_context, tmp_path / "j", run_id=run_id, bind=bind, replay_bind=replay_bind
            )
        return running(zmq_context, run_id=run_id, bind=bind, replay_bind=replay_bind)

    with start(journal_first, RUNS[0]) as daemon:
        endpoint, replay = daemon.endpoint, daemon.replay
        subscriber = Subscriber(endpoint, replay=replay, context=zmq_context)
        wait_until(lambda: daemon.subscriptions() == 1, "the subscription")
        daemon.publish(make.emotion("a"), make.emotion("a"))
        assert len(cursors(take(subscriber, 2))) == 2
    with (
        subscriber,
        start(not journal_first, RUNS[1], bind=endpoint, replay_bind=replay) as daemon,
    ):
        daemon.publish(*(make.emotion("a") for _ in range(5)))
        items: list[Item] = []
        while len(cursors(items)) < 5:
            items += take(subscriber, 1)
        last = daemon.publisher.last_cursor
        assert cursors(items) == list(range(last - 4, last + 1))
        [restarted] = [item for item in items if isinstance(item, Restarted)]
        assert not restarted.continues


def test_a_daemon_that_is_away_is_waited_for(zmq_context: Context, tmp_path: Path) -> None:
    path, clock = tmp_path / "j", FakeClock()
    with journalled(zmq_context, path, run_id=RUNS[0], clock=clock) as daemon:
        endpoint, replay, first = daemon.endpoint, daemon.replay, journal_of(daemon).first
        daemon.publish(*(make.emotion("a") for _ in range(30)))
    with Subscriber(endpoint, replay=replay, after=0, context=zmq_context) as subscriber:
        # The request is on its way; nobody is there to answer it.
        assert subscriber.receive(0.05) is None
        with journalled(
            zmq_context, path, run_id=RUNS[1], clock=clock, bind=endpoint, replay_bind=replay
        ):
            items = [subscriber.receive(PATIENCE_S) for _ in range(30)]
            assert cursors([item for item in items if item]) == list(range(first, first + 30))
