"""Stages that move, that rightly wait, and that are stuck."""

from __future__ import annotations

import pytest

from serd.pulse import Pulse, StagePulse


class Clock:
    def __init__(self) -> None:
        self.ns = 5_000_000_000

    def __call__(self) -> int:
        return self.ns


class Watched:
    """One stage, looked at once a second."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pulse = Pulse(stuck_after_s=10.0, now_ns=self.clock)
        self.owed = False
        self.stage: StagePulse = self.pulse.stage("speech", owed=lambda: self.owed)
        self.pulse.look()

    def seconds(self, count: int) -> tuple[str, ...]:
        for _ in range(count):
            self.clock.ns += 1_000_000_000
            self.pulse.look()
        return self.pulse.stuck()


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_stage_that_says_nothing_is_stuck_after_the_limit(watched: Watched) -> None:
    watched.stage.beat()
    assert watched.seconds(10) == ()
    assert watched.seconds(1) == ("speech",)
    assert watched.pulse.ages() == {"speech": 11.0}


def test_one_beat_takes_it_back(watched: Watched) -> None:
    watched.stage.beat()
    assert watched.seconds(20) == ("speech",)
    watched.stage.beat()
    assert watched.seconds(1) == ()


def test_a_stage_that_moves_is_never_stuck(watched: Watched) -> None:
    for _ in range(100):
        watched.stage.beat()
        assert watched.seconds(1) == ()


def test_a_stage_without_work_may_wait_for_ever(watched: Watched) -> None:
    watched.stage.idle()
    assert watched.seconds(1000) == ()
    assert watched.pulse.ages() == {"speech": 0.0}


def test_a_stage_that_waits_beside_its_work_has_missed_its_wake(watched: Watched) -> None:
    watched.stage.idle()
    watched.owed = True
    assert watched.seconds(11) == ("speech",)
    watched.owed = False
    assert watched.seconds(1) == ()


def test_work_that_comes_late_starts_the_count_anew(watched: Watched) -> None:
    watched.stage.idle()
    assert watched.seconds(100) == ()
    watched.owed = True
    assert watched.seconds(9) == ()


def test_a_pause_of_the_whole_process_counts_little(watched: Watched) -> None:
    watched.stage.beat()
    watched.seconds(1)
    watched.clock.ns += 3_600_000_000_000
    assert watched.pulse.look() == ()


def test_a_stage_that_has_ended_is_forgotten(watched: Watched) -> None:
    watched.stage.beat()
    assert watched.seconds(20) == ("speech",)
    watched.pulse.end(watched.stage)
    assert watched.pulse.stuck() == ()
    assert watched.pulse.ages() == {}


def test_a_new_stage_takes_the_place_of_an_old_one_of_its_name(watched: Watched) -> None:
    old = watched.stage
    old.beat()
    assert watched.seconds(20) == ("speech",)
    new = watched.pulse.stage("speech")
    assert watched.pulse.stuck() == ()
    # The end of the old one does not concern the new one.
    watched.pulse.end(old)
    new.beat()
    assert watched.seconds(20) == ("speech",)


def test_others_are_not_blamed(watched: Watched) -> None:
    other = watched.pulse.stage("publish")
    watched.stage.beat()
    for _ in range(20):
        other.beat()
        watched.seconds(1)
    assert watched.pulse.stuck() == ("speech",)
