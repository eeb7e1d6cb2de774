"""A machine as arithmetic: calls, what they cost, processors, and the policy of overload."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from serd.runtime.forecast import Forecast, Usage
from serd.runtime.overload import Governor

BOUND_MS = 110
STEP_S = 0.02
_SPEAKS = 0.43


@dataclass(frozen=True)
class Costs:
    """Processor seconds. The defaults are those of the shipped model on a core of 2.6 GHz."""

    ingest_stream: float = 0.0002
    speech_stream: float = 0.00025
    opening: float = 0.0001
    segment: float = 0.0034
    segments_s: float = 0.4
    # Publishing, and what else runs on the machine.
    others: float = 0.15


@dataclass
class Machine:
    """Calls come and go; what is analysed of them uses the processors, and what is too much waits.

    The detector's share is taken first, what the model lacks waits for it: `lag_s`.
    """

    processors: float = 2.0
    costs: Costs = field(default_factory=Costs)
    seed: int = 1
    # Of the processors' time, what somebody else takes without the daemon's knowing.
    taken: float = 0.0
    forecasts: bool = True

    def __post_init__(self) -> None:
        self.governor = Governor(BOUND_MS)
        self.forecast = Forecast(self.processors, min(4, math.ceil(self.processors)))
        self.now_s = 0.0
        self.lag_s = 0.0
        self.queued = 0.0
        self.open: list[int] = []
        # Moment from which a stream that is analysed has segments.
        self.speaks_s: dict[int, float] = {}
        self.lags: list[tuple[float, float]] = []
        self.kept: list[tuple[float, int]] = []
        self.ever_shed: set[int] = set()
        self._random = np.random.default_rng(self.seed)
        self._opened = 0
        self._next = 0
        self._shares = np.zeros(3)
        self._segments = self._scored = 0.0
        self._observed_s = 0.0

    def come(self, streams: int) -> None:
        """So many streams open."""
        for _ in range(streams):
            key, self._next = self._next, self._next + 1
            self.open.append(key)
            self._opened += 1
            if self.governor.opened(key):
                self._analyse([key])
            else:
                self.ever_shed.add(key)

    def go(self, keys: Iterable[int]) -> None:
        """These streams end."""
        for key in list(keys):
            self.governor.closed(key)
            self.open.remove(key)
            if key in self.speaks_s:
                del self.speaks_s[key]
                # Who is speaking is cut short.
                self.queued += self._random.random() < _SPEAKS
            self._opened += 1

    def run(self, seconds: float, come_s: float = 0.0, go_s: float = 0.0) -> None:
        """Let time pass, while so many streams a second come, or those that came last go."""
        steps = round(seconds / STEP_S)
        for step in range(steps):
            self.come(int((step + 1) * STEP_S * come_s) - int(step * STEP_S * come_s))
            gone = int((step + 1) * STEP_S * go_s) - int(step * STEP_S * go_s)
            self.go(self.open[len(self.open) - gone :])
            self._step()

    def worst_s(self, since_s: float) -> float:
        """The longest lag since a moment."""
        return max(lag for at_s, lag in self.lags if at_s >= since_s)

    def late_share(self, since_s: float, limit_s: float = 0.18) -> float:
        """Share of the time since a moment in which the lag was longer than this."""
        lags = [lag for at_s, lag in self.lags if at_s >= since_s]
        return sum(lag > limit_s for lag in lags) / len(lags)

    def _analyse(self, keys: Iterable[int]) -> None:
        for key in keys:
            self.speaks_s[key] = self.now_s + self._random.uniform(1.0, 5.0)

    def _step(self) -> None:
        costs, dt = self.costs, STEP_S
        self.now_s += dt
        speaking = sum(at_s <= self.now_s for at_s in self.speaks_s.values())
        segments = int(self._random.poisson(speaking * costs.segments_s * dt))
        self.queued += segments
        self._segments += segments
        ingest = len(self.open) * costs.ingest_stream * dt + self._opened * costs.opening
        self._opened = 0
        speech = len(self.speaks_s) * costs.speech_stream * dt
        left = max((self.processors - self.taken - costs.others) * dt - ingest - speech, 0.05 * dt)
        scored = min(self.queued, left / costs.segment)
        self.queued -= scored
        self._scored += scored
        self._shares += ingest, speech, scored * costs.segment
        self.lag_s = self.queued * costs.segment / (left / dt)
        self.lags.append((self.now_s, self.lag_s))
        self.kept.append((self.now_s, self.governor.kept))
        now_ns = round(self.now_s * 1e9)
        if self.forecasts and self.now_s - self._observed_s >= 0.15:
            self._observed_s = self.now_s
            ingest_ns, speech_ns, model_ns = (self._shares * 1e9).astype(int).tolist()
            usage = Usage(ingest_ns, speech_ns, model_ns, int(self._segments), int(self._scored))
            self.forecast.observe(now_ns, usage, self.governor.kept)
            self.governor.expect(self.forecast.fits, self.forecast.bearable)
        moves = self.governor.observe(now_ns, round(self.lag_s * 1e9))
        if moves is not None:
            waiting = len(self.speaks_s)
            for key in moves.shed:
                self.ever_shed.add(key)
                del self.speaks_s[key]
            # What waits of those that are shed is withdrawn.
            self.queued *= len(self.speaks_s) / max(1, waiting)
            self._analyse(moves.back)
