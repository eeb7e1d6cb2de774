"""How many streams fit, learnt from what those that are there use."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serd.runtime.forecast import Forecast, Usage

INTERVAL_S = 0.15


@dataclass
class Costs:
    """Processor seconds, of a stream for each second and of a segment."""

    ingest: float = 0.0002
    speech: float = 0.0003
    segment: float = 0.003
    segments_s: float = 0.4

    @property
    def model(self) -> float:
        return self.segment * self.segments_s

    def fit(self, processors: float, streams: float) -> float:
        """How many fit beside the ingest of so many streams, if none of the time is spared."""
        return (processors - streams * self.ingest) / (self.speech + self.model)


class Daemon:
    """Uses what its streams cost, as far as it is given the time."""

    def __init__(
        self, processors: float = 2.0, workers: int | None = 4, costs: Costs | None = None
    ) -> None:
        self.forecast = Forecast(processors, workers)
        self.costs = costs or Costs()
        self._now_s = 0.0
        self._used = [0.0] * 5

    def run(
        self, seconds: float, streams: int, speaking: int | None = None, given: float = 1.0
    ) -> None:
        """Let `streams` be heard, of which so many have segments already."""
        costs = self.costs
        for _ in range(round(seconds / INTERVAL_S)):
            segments = (streams if speaking is None else speaking) * costs.segments_s * INTERVAL_S
            added = (
                given * streams * costs.ingest * INTERVAL_S,
                given * streams * costs.speech * INTERVAL_S,
                given * segments * costs.segment,
                segments,
                given * segments,
            )
            self._now_s += INTERVAL_S
            self._used = [before + new for before, new in zip(self._used, added, strict=True)]
            ingest_s, speech_s, model_s, asked, scored = self._used
            usage = Usage(
                round(ingest_s * 1e9),
                round(speech_s * 1e9),
                round(model_s * 1e9),
                round(asked * 1e6),
                round(scored * 1e6),
            )
            self.forecast.observe(round(self._now_s * 1e9), usage, streams)


@given(
    streams=st.integers(300, 1000),
    segment=st.floats(0.003, 0.01),
    segments_s=st.floats(0.4, 1.0),
)
@settings(max_examples=30, deadline=None)
def test_what_fits_leaves_some_of_the_processors_time(
    streams: int, segment: float, segments_s: float
) -> None:
    costs = Costs(segment=segment, segments_s=segments_s)
    daemon = Daemon(processors=4.0, costs=costs)
    daemon.run(60, streams)
    assert 0.75 < daemon.forecast.fits / costs.fit(4.0, streams) < 0.9


def test_nothing_is_known_at_first() -> None:
    daemon = Daemon()
    assert daemon.forecast.fits == math.inf
    daemon.run(1, 0)
    assert daemon.forecast.fits == math.inf
    assert daemon.forecast.bearable == 0


def test_streams_count_in_full_before_their_first_segments() -> None:
    daemon = Daemon()
    daemon.run(60, 400)
    before = daemon.forecast.fits
    daemon.run(2, 800, speaking=400)
    ingest = 400 * daemon.costs.ingest / (daemon.costs.speech + daemon.costs.model)
    assert daemon.forecast.fits == pytest.approx(before - ingest, rel=0.1)


def test_the_ingest_of_those_that_are_left_out_counts() -> None:
    shed_too, kept_only = Daemon(costs=Costs(ingest=0.001)), Daemon(costs=Costs(ingest=0.0005))
    for daemon in (shed_too, kept_only):
        daemon.run(60, 500)
    assert shed_too.forecast.fits < kept_only.forecast.fits - 100


def test_what_can_be_borne_is_what_is_given_while_work_waits() -> None:
    daemon = Daemon()
    daemon.run(60, 600)
    fits = daemon.forecast.fits
    daemon.run(1, 600, given=0.5)
    assert 250 < daemon.forecast.bearable < 400
    # That much is taken away says nothing of what there is.
    assert daemon.forecast.fits > 0.9 * fits


def test_of_a_thread_that_there_is_one_of_no_more_can_be_had() -> None:
    daemon = Daemon(processors=64.0, costs=Costs(ingest=0.0, speech=0.001, segment=0.0001))
    daemon.run(60, 500)
    assert 800 < daemon.forecast.fits < 1000


def test_the_models_threads_have_a_bound_of_their_own() -> None:
    bound, free = Daemon(processors=64.0, workers=1), Daemon(processors=64.0, workers=None)
    for daemon in (bound, free):
        daemon.run(60, 500)
    assert bound.forecast.fits == pytest.approx(0.9 / bound.costs.model, rel=0.05)
    assert free.forecast.fits > 2 * bound.forecast.fits
    # What a device is given does not show in processor time.
    assert free.forecast.bearable == 0


def test_time_that_is_forgotten_is_nobodys() -> None:
    daemon, calm = Daemon(), Daemon()
    for each in (daemon, calm):
        each.run(60, 500)
    daemon.costs = Costs(ingest=0.002, speech=0.003)
    for _ in range(40):
        daemon.forecast.forget_time()
        daemon.run(INTERVAL_S, 500)
        assert daemon.forecast.fits == math.inf
    daemon.costs = calm.costs
    for each in (daemon, calm):
        each.run(1, 500)
    assert daemon.forecast.fits == pytest.approx(calm.forecast.fits, rel=0.01)
