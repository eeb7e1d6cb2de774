"""The service manager's watchdog, fed only while every stage moves or rightly waits."""

from __future__ import annotations

import structlog

from serd.pulse import STUCK_AFTER_S, Pulse
from serd.runtime.systemd import Notifier

_log = structlog.get_logger(__name__)

# Stages are looked at this often, with or without a service manager: health asks as well.
_LOOK_S = 1.0


def patience_s(notifier: Notifier) -> float:
    """How long a stage may stand still: half of what the service manager waits, or 10 s."""
    return notifier.watchdog_s / 2 if notifier.watchdog_s else STUCK_AFTER_S


class Watchdog:
    """Looks at the stages and reports to the service manager.

    Parameters
    ----------
    pulse
        The stages.
    notifier
        The service manager; one without a watchdog is told nothing.
    """

    def __init__(self, pulse: Pulse, notifier: Notifier) -> None:
        self._pulse = pulse
        self._notifier = notifier
        self._told: tuple[str, ...] = ()

    @property
    def tick_s(self) -> float:
        """How often `feed` is to be called: four times within the manager's patience at least."""
        watchdog_s = self._notifier.watchdog_s
        return min(_LOOK_S, watchdog_s / 4) if watchdog_s else _LOOK_S

    def feed(self) -> tuple[str, ...]:
        """Look, and tell the manager that all is well if it is; the names of stuck stages."""
        stuck = self._pulse.look()
        if stuck != self._told:
            self._told = stuck
            if stuck:
                _log.error("stage.stuck", stages=stuck, ages=dict(self._pulse.ages()))
            else:
                _log.warning("stage.moves")
        if not stuck:
            self._notifier.notify(WATCHDOG="1")
        return stuck
