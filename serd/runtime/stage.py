"""The speech thread: both pools in turn, the rhythm of its rounds, and the policy of overload."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from serd.channel import Waker
from serd.clock import Clock
from serd.pulse import Pulse, StagePulse
from serd.rows import RowPool
from serd.runtime.forecast import Forecast, Usage
from serd.runtime.overload import Governor
from serd.runtime.rhythm import rest_s
from serd.runtime.speech import SpeechPool
from serd.threads import name_thread

_log = structlog.get_logger(__name__)

# Half a frame: most of a frame's rows are then ready together, and a frame waits 8 ms on average.
_LONGEST_S = 0.016
# A live row has a frame every 32 ms: one step, or two, catch up with what came while the thread
# rested. A round of more steps is behind, or works through a recording, and no rest may follow.
_LIVE_STEPS = 2
_IDLE_S = 1.0
# While streams are shed the governor wants to know how things are, whether audio comes or not.
_SHEDDING_IDLE_S = 0.1
_FORECAST_NS = 150_000_000


class SpeechStage:
    """Both pools, stepped in turn until nothing is left to do, under the governor's eye.

    Parameters
    ----------
    pools, shared
        The pools' reading sides, and the pools.
    governor
        Decides which streams are shed.
    around
        Nanoseconds that audio waits before it reaches a row and that a segment waits for the
        model: the parts of the lag that the pools cannot see.
    forecast, usage
        How many streams there can be, from what was used so far. Asked on the caller's thread.
    withdraw
        Takes the keys of streams that are shed: of their segments none need wait for the model.
    """

    def __init__(
        self,
        pools: Sequence[SpeechPool],
        shared: Sequence[RowPool],
        governor: Governor,
        around: Callable[[], int],
        clock: Clock,
        forecast: Forecast,
        usage: Callable[[], Usage],
        withdraw: Callable[[frozenset[int]], None],
    ) -> None:
        self._pools = pools
        self._shared = shared
        self._governor = governor
        self._around = around
        self._clock = clock
        self._forecast = forecast
        self._usage = usage
        self._withdraw = withdraw
        self._forecast_ns = 0

    def work(self, pulse: StagePulse | None = None) -> int:
        """Do everything that is due; return in how many steps. `pulse` is told of each."""
        steps = 0
        while True:
            if pulse is not None:
                pulse.beat()
            # Not any(): every pool must have its turn.
            more = sum(pool.step() for pool in self._pools)
            steps += 1
            if self._governor.governs:
                self._govern()
            if not more:
                return steps

    def _govern(self) -> None:
        lag_ns = max(pool.lag_ns for pool in self._pools) + self._around()
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._forecast_ns >= _FORECAST_NS:
            self._forecast_ns = now_ns
            self._expect(now_ns)
        moves = self._governor.observe(now_ns, lag_ns)
        if moves is None:
            return
        for pool in self._pools:
            pool.shed(moves.shed)
            pool.take_back(moves.back)
        if moves.shed:
            self._withdraw(frozenset(moves.shed))
        # Not the many small steps of the way back, only its end.
        if moves.shed:
            _log.warning(
                "overload",
                lag_ms=round(lag_ns / 1e6),
                kept=self._governor.kept,
                shed=self._governor.shed,
            )
        elif not self._governor.shed:
            _log.info("overload.over", kept=self._governor.kept)

    def _expect(self, now_ns: int) -> None:
        forecast, governor = self._forecast, self._governor
        if any(pool.any_patient() for pool in self._shared):
            # Recordings played fast take all that live streams leave: of what is used nobody
            # knows for whom.
            forecast.forget_time()
        else:
            forecast.observe(now_ns, self._usage(), governor.kept)
        governor.expect(forecast.fits, forecast.bearable)

    @property
    def empty(self) -> bool:
        """Whether no row is in use."""
        return not any(bool(pool.active.any()) for pool in self._shared)

    @property
    def shedding(self) -> bool:
        """Whether streams are shed now."""
        return self._governor.shed > 0

    def counts(self) -> dict[str, int]:
        """Frames judged, detector calls that took, and what was shed."""
        pools = self._pools
        return {
            "vad.frames": sum(pool.frames for pool in pools),
            "vad.calls": sum(pool.steps for pool in pools),
            "vad.gated": sum(pool.detector.gated for pool in pools),
            "vad.compute_ns": sum(pool.detector.compute_ns for pool in pools),
            "overload.rows": self._governor.shed,
            "overload.cuts": self._governor.cuts,
            "overload.sheds": self._governor.sheds,
            "overload.samples": sum(pool.shed_samples for pool in pools),
            "overload.segments": sum(pool.shed_segments for pool in pools),
        }


class SpeechThread:
    """Runs the speech stage when it is woken, and rests between its rounds."""

    def __init__(
        self,
        stage: SpeechStage,
        on_failure: Callable[[BaseException], None],
        pulse: Pulse | None = None,
    ) -> None:
        self.waker = Waker()
        self._pulse = pulse or Pulse()
        self._stage = stage
        self._on_failure = on_failure
        self._stopping = False
        self._rested = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="serd-speech", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        name_thread("serd-speech")
        pulse = self._pulse.stage("speech")
        try:
            while not self._stopping:
                self.waker.wait(_SHEDDING_IDLE_S if self._stage.shedding else _IDLE_S)
                began = time.monotonic()
                steps = self._stage.work(pulse)
                with self._rested:
                    self._rested.notify_all()
                if steps <= _LIVE_STEPS:
                    time.sleep(rest_s(time.monotonic() - began, _LONGEST_S))
        except BaseException as error:
            _log.exception("speech.failed")
            self._on_failure(error)
        finally:
            self._pulse.end(pulse)

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no row is in use any more; return whether that came to pass."""
        with self._rested:
            self.waker.wake()
            return self._rested.wait_for(
                lambda: self._stage.empty or not self._thread.is_alive(), timeout_s
            )

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread after its current round; return whether it ended in time."""
        self._stopping = True
        self.waker.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()
