"""More than the machine can take: which streams are left out, and when they are taken back.

The policy
----------
Streams of sources that can wait (``PULL``, files) are never touched: those sources wait. Of all
others the daemon promises that what it analyses it analyses soon. When it cannot do that for all,
whole streams are *shed*, the youngest first: a call that is judged throughout is worth more than
two of which every other sentence is missing, and a call that was heard so far is not given up for
one that has just begun. A shed stream stays open. Its audio is skipped, an utterance that is open
in it ends with the reason ``overload``, and when it is taken back, pauses or ends, one ``gap``
event of reason ``overload`` tells the range. Shed streams are taken back oldest first. A stream
that opens while others are shed, or while the lag is above its bound, begins shed. One stream is
always kept.

The governor
------------
`Governor` decides it from one number, the *lag*: how long the oldest audio that has arrived has
waited to be analysed, plus how long a segment cut now would wait for the model. It has no clock
and no threads.

*Too much* is a standing lag, not a peak: the least lag seen in an interval of 150 ms, so that a
burst that is worked off at once costs nobody a call (the idea of CoDel, RFC 8289, 3.2). What is
cut follows from the lag and its trend, as in PIE (RFC 8033, 4.2). With a load of `r` times the
capacity the lag grows by ``g = 1 - 1/r`` seconds a second. Keeping the share
``(1 - g) / (1 + w)`` of the streams makes it shrink by `w` instead, and `w` is chosen so that the
excess fades with a time constant of 1 s. So at twice the capacity a cut or two are enough, and just
above it they cost some 10 % of the streams. A cut comes before the bound is reached: once half of
it stands, and the trend leads beyond it within a quarter of a second. What cannot be the load's
doing, a lag that grew faster than time while the process stood still, or one that is on its way
down already, is left alone.

*Taking back* follows CUBIC (RFC 9438, 4.2). The number of streams that were sustainable at the cut
is remembered. From the cut on, and only while the lag is small, the streams allowed grow along
a cube through that number: fast at first, hardly at all around it, then ever faster, which finds
out whether the machine has become free. The time to that number is 2 s, and twice as long after
every attempt that failed, up to 8 s. They never grow by
more than a third a second, because the lag tells of too many only later. When streams end, those
that were shed take their places at once.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

_INTERVAL_NS = 150_000_000
# A thread that is kept from the processor measures seldom, and in its worst moments.
_LEAST_MEASUREMENTS = 3
# A lag below this share of the bound is small: streams are taken back.
_CALM = 0.5
# A cut comes when the lag would reach the bound within so many seconds.
_FORESIGHT_S = 0.25
_DRAIN_S = 1.0
_FASTEST_DRAIN = 0.3
# No load makes a lag grow faster than time: what does so is a process that stood still.
_STALL = 0.95
_LARGEST_CUT = 0.7
# Smaller cuts are within the error of the measurement.
_SMALLEST_CUT = 0.03
# What comes back in a second, in parts of what is there: the lag tells of too many only later.
_FASTEST_RETURN = 0.35
_SHORTEST_S = 2.0
_LONGEST_S = 8.0
# Least share that the cube climbs in its first half: a small cut must not make it flat for ever.
_LEAST_DEPTH = 0.15
# When all streams have been back for so many times the time to the remembered number, the
# overload is history.
_FORGOTTEN = 3.0


class Moves(NamedTuple):
    """Streams to be shed, youngest first, and to be taken back, oldest first, by their keys."""

    shed: list[int]
    back: list[int]


class Governor:
    """Which of the streams that cannot wait are analysed.

    Parameters
    ----------
    max_lag_ms
        Bound of the lag, in ms.

    Attributes
    ----------
    cuts
        Times that streams were shed.
    sheds
        Streams that were shed, counting one as often as it happened, and those that began so.

    Notes
    -----
    Streams are known by integer keys; a younger stream has the greater one.
    """

    def __init__(self, max_lag_ms: float) -> None:
        self._bound_s = max_lag_ms / 1000
        self._calm_s = self._bound_s * _CALM
        # The first `_kept` of them are analysed, the others are shed.
        self._keys: list[int] = []
        self._kept = 0
        self._allowed = math.inf
        self._sustainable = 0.0
        self._depth = 0.0
        self._grown_s = 0.0
        self._until_sustainable_s = _SHORTEST_S
        self._began_ns: int | None = None
        self._first_ns = 0
        self._least_ns = 0
        self._measurements = 0
        self._before_s: float | None = None
        self._settled_ns = 0
        self._last_ns = 0
        self._stood_still = False
        self.cuts = 0
        self.sheds = 0

    @property
    def governs(self) -> bool:
        """Whether there is any stream to decide about."""
        return bool(self._keys)

    @property
    def kept(self) -> int:
        """Streams that are analysed."""
        return self._kept

    @property
    def shed(self) -> int:
        """Streams that are shed now."""
        return len(self._keys) - self._kept

    def opened(self, key: int) -> bool:
        """A stream has opened; return whether it is analysed from its beginning."""
        if self._last_ns > self._bound_s * 1e9 and self._kept and self._allowed == math.inf:
            # Not those that are there pay for a crowd that comes faster than a lag is judged.
            self._allowed = self._sustainable = float(self._kept)
            self._depth = _LEAST_DEPTH
            self._grown_s = 0.0
        kept = not self.shed and self._kept < max(1, self._allowed)
        self._keys.append(key)
        if kept:
            self._kept += 1
        else:
            self.sheds += 1
        return kept

    def closed(self, key: int) -> None:
        """A stream, shed or not, has ended."""
        at = bisect_left(self._keys, key)
        del self._keys[at]
        if at < self._kept:
            self._kept -= 1

    def observe(self, now_ns: int, lag_ns: int) -> Moves | None:
        """Take a measurement of the lag; return what follows from it, if anything.

        Parameters
        ----------
        now_ns
            Monotonic time.
        lag_ns
            The lag at this moment, 0 when nothing waits. The more often, the better.
        """
        self._last_ns = lag_ns
        if self._began_ns is None:
            self._began_ns, self._first_ns, self._least_ns = now_ns, lag_ns, lag_ns
        self._least_ns = min(self._least_ns, lag_ns)
        self._measurements += 1
        elapsed_ns = now_ns - self._began_ns
        if elapsed_ns < _INTERVAL_NS or self._measurements < _LEAST_MEASUREMENTS:
            return None
        self._measurements = 0
        elapsed_s = elapsed_ns / 1e9
        least_s, before_s = self._least_ns / 1e9, self._before_s
        inside_s = (lag_ns - self._first_ns) / 1e9
        self._began_ns, self._first_ns, self._least_ns = now_ns, lag_ns, lag_ns
        self._before_s = least_s
        if least_s <= self._calm_s:
            return self._take_back(elapsed_s)
        if before_s is None or now_ns < self._settled_ns:
            return None
        # Of the two, what a process that stood still has left behind falls already.
        return self._cut(now_ns, least_s, min(least_s - before_s, inside_s) / elapsed_s)

    def _cut(self, now_ns: int, lag_s: float, trend: float) -> Moves | None:
        # Twice in a row it was no standstill, but a load beyond all measure.
        stood_still, self._stood_still = self._stood_still, trend > _STALL
        if self._stood_still and not stood_still:
            return None
        if lag_s + trend * _FORESIGHT_S <= self._bound_s:
            return None
        shrink = min((lag_s - self._calm_s) / _DRAIN_S, _FASTEST_DRAIN)
        cut = min(1 - (1 - trend) / (1 + shrink), _LARGEST_CUT)
        before = self._kept
        kept = max(1, math.floor(before * (1 - cut)))
        if cut < _SMALLEST_CUT or kept >= before:
            return None
        if self._grown_s > self._until_sustainable_s / 2:
            self._until_sustainable_s = min(2 * self._until_sustainable_s, _LONGEST_S)
        self._sustainable = max(1.0, before * (1 - max(trend, 0.0)))
        self._depth = max(_LEAST_DEPTH, 1 - kept / self._sustainable)
        self._allowed = kept
        self._grown_s = 0.0
        # Measurements from before the cut say nothing of the trend after it, and what it did
        # shows in the lag about as late as the lag is long.
        self._before_s = None
        self._settled_ns = now_ns + round(lag_s * 1e9)
        self._kept = kept
        self.cuts += 1
        self.sheds += before - kept
        return Moves(self._keys[kept:before][::-1], [])

    def _take_back(self, elapsed_s: float) -> Moves | None:
        if self._allowed == math.inf:
            return None
        # Of a time in which nothing was measured, nothing is known.
        self._grown_s += min(elapsed_s, 5 * _INTERVAL_NS / 1e9)
        done = self._grown_s / self._until_sustainable_s
        before = self._kept
        cube = self._sustainable * (1 + self._depth * (done - 1) ** 3)
        # Whole streams come back, so of a few at least one.
        fastest = max(self._allowed, before) * (1 + _FASTEST_RETURN * elapsed_s) + elapsed_s
        self._allowed = min(cube, fastest)
        self._kept = max(before, min(len(self._keys), math.floor(max(1.0, self._allowed))))
        if done >= _FORGOTTEN and not self.shed:
            self._allowed = math.inf
            self._until_sustainable_s = _SHORTEST_S
        return Moves([], self._keys[before : self._kept]) if self._kept > before else None
