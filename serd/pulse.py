"""Whether the stages still move: each says when it goes round and when it rightly waits.

A stage that does neither for long is stuck: in a call that never returns, or before a lock that
nobody gives back. The service manager then starts the daemon anew, and `/health/live` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Lock

STUCK_AFTER_S = 10.0
"""How long a stage may take for one round. A batch on a slow processor takes a second."""

# Between two looks no more than this counts against a stage: when the whole process was stopped
# or the machine slept, nobody could move.
_LONGEST_LOOK_S = 5.0


class StagePulse:
    """One stage's own side. Written by its thread alone, without a lock; costs a clock reading.

    Parameters
    ----------
    name
        Of the stage, for people: ``speech``, ``inference-0``.
    owed
        Whether the stage has something to do; asked while it says that it waits. One that waits
        although there is work has missed its wake, and is stuck as well.
    now_ns
        Monotonic time.
    """

    def __init__(
        self, name: str, owed: Callable[[], bool] | None, now_ns: Callable[[], int]
    ) -> None:
        self.name = name
        self.owed = owed
        self.waits = False
        self.at_ns = now_ns()
        self._now_ns = now_ns

    def beat(self) -> None:
        """Say that a round begins, or that a long one has come a step further."""
        self.waits = False
        self.at_ns = self._now_ns()

    def idle(self) -> None:
        """Say that from here on there is nothing to do until somebody wakes the stage."""
        self.at_ns = self._now_ns()
        self.waits = True


class Pulse:
    """The stages of a daemon, and which of them are stuck.

    Parameters
    ----------
    stuck_after_s
        How long a stage may neither move nor say that it waits.
    now_ns
        Monotonic time; driven by tests.
    """

    def __init__(
        self,
        stuck_after_s: float = STUCK_AFTER_S,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._limit_ns = round(stuck_after_s * 1e9)
        self._now_ns = now_ns
        self._stages: dict[str, StagePulse] = {}
        # Of each stage: what it last said, and for how long that has not changed.
        self._seen: dict[str, tuple[int, int]] = {}
        self._looked_ns = now_ns()
        self._lock = Lock()

    def stage(self, name: str, owed: Callable[[], bool] | None = None) -> StagePulse:
        """The pulse of a stage that begins, in place of one of the same name. Any thread."""
        pulse = StagePulse(name, owed, self._now_ns)
        with self._lock:
            self._stages[name] = pulse
            self._seen.pop(name, None)
        return pulse

    def end(self, stage: StagePulse) -> None:
        """Forget a stage that has ended. Any thread."""
        with self._lock:
            if self._stages.get(stage.name) is stage:
                del self._stages[stage.name]
                self._seen.pop(stage.name, None)

    def look(self) -> tuple[str, ...]:
        """Look at every stage; the names of those that are stuck.

        One caller, in a steady rhythm: time counts against a stage as it passes between looks.
        """
        now_ns = self._now_ns()
        passed_ns = min(now_ns - self._looked_ns, round(_LONGEST_LOOK_S * 1e9))
        self._looked_ns = now_ns
        with self._lock:
            for name, stage in self._stages.items():
                said_ns, still_ns = self._seen.get(name, (-1, 0))
                if stage.at_ns != said_ns or self._rests(stage):
                    self._seen[name] = (stage.at_ns, 0)
                else:
                    self._seen[name] = (said_ns, still_ns + passed_ns)
        return self.stuck()

    def stuck(self) -> tuple[str, ...]:
        """Names of the stages that the last look found stuck. Any thread."""
        with self._lock:
            return tuple(name for name, (_, still) in self._seen.items() if still > self._limit_ns)

    def ages(self) -> Mapping[str, float]:
        """Seconds since each stage last said something; 0 while it rightly waits. Any thread."""
        now_ns = self._now_ns()
        with self._lock:
            return {
                name: 0.0 if self._rests(stage) else max(0, now_ns - stage.at_ns) / 1e9
                for name, stage in self._stages.items()
            }

    @staticmethod
    def _rests(stage: StagePulse) -> bool:
        return stage.waits and not (stage.owed is not None and stage.owed())
