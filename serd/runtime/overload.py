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
that opens while others are shed, while the lag is above its bound, or when more are analysed
already than the machine is expected to take, begins shed. One stream is always kept.

What waits of a stream that is shed is given up with it: its audio, and those of its segments that
wait for the model. So a cut shortens the wait of those that stay at once.

The governor
------------
`Governor` decides it from two numbers. The *lag* is how long the oldest audio that has arrived has
waited to be analysed, plus how long a segment cut now would wait for the model. *What fits* is how
many streams the machine is expected to take (`serd.runtime.forecast`); it may be unknown. The lag
alone tells of a rush seconds late, when the first utterances of those that came end; a forecast
alone can be wrong. So what fits decides who is let in, and the lag who has to go. It has no clock
and no threads.

*Letting in.* What fits is known to within some 5 %. Streams open up to that share above it, but
until the next forecast, which comes within a fifth of a second, no more than half of those that
still fit: what a rush costs besides is seen before it is let in. Streams come back when all fit, or
up to a share below what fits that grows while the lag is small, as the forecast may be too low:
slowly in a crowd, faster when few are left out.

*Too much* is a standing lag, not a peak: the least lag seen in an interval of 150 ms, so that a
burst that is worked off at once costs nobody a call (the idea of CoDel, RFC 8289, 3.2). A cut comes
before the bound is reached: once half of it stands, and the trend leads beyond it within a quarter
of a second. What cannot be the load's doing, a lag that grew faster than time while the process
stood still, or one that is on its way down already, is left alone. In a crowd, when streams are
shed already and more than fit are analysed, any lag of a third of the bound will do: it bears the
forecast out.

*How much* is cut is what does not fit. Otherwise it follows from the lag and its trend, as in PIE
(RFC 8033, 4.2). With a load of `r` times the capacity the lag grows by ``g = 1 - 1/r`` seconds a
second. Keeping the share ``(1 - g) / (1 + w)`` of the streams makes it shrink by `w` instead, and
`w` is chosen so that the excess fades with a time constant of 1 s. So at twice the capacity a cut
or two are enough, and just above it they cost some 10 % of the streams. A trend may be that of a
passing burst, as when a thousand calls end and all who spoke have a last segment. So no more is
taken than leaves those that the processors bear just now, over `1 + w`.

*Taking back* after such a cut follows CUBIC (RFC 9438, 4.2). The number of streams to come back to
is remembered: all that fit, or those that were sustainable at the cut, if nothing is known of what
fits or an attempt has failed. From the cut on, and only while the lag is small, the streams allowed
grow along a cube through that number: fast at first, hardly at all around it, then ever faster,
which finds out whether the machine has become free. The time to that number is 2 s, and twice as
long after every attempt that failed, up to 8 s. They never grow by more than a third a second,
because the lag tells of too many only later, or twofold where it is known what fits. When streams
end, those that were shed take their places, at once after such a cut.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

_INTERVAL_NS = 150_000_000
# A thread that is kept from the processor measures seldom, and in its worst moments.
_LEAST_MEASUREMENTS = 3
# What fits, as far as that is known: above it streams open and stay, below it they come back.
_TOO_MANY = 1.05
_BACK = 0.92
# What fits may be more than is known: so much of it is tried a second while the lag is small; more
# where few are shed, of whom a try can bring no more.
_TRUST_S = 0.0025
_TRUST_OF_FEW_S = 0.03
_FEW = 0.3
# A lag below this share of the bound is small: streams are taken back.
_CALM = 0.5
# The same while more are analysed than fit, and others wait outside.
_CALM_IN_A_CROWD = 0.3
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
# The same up to what is known to fit.
_FASTEST_FITTING_RETURN = 1.0
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
        self._fits, self._bearable = math.inf, 0.0
        self._door = math.inf
        self._trust = _BACK
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

    def expect(self, fits: float, bearable: float) -> None:
        """Hear how many streams can be analysed, see `serd.runtime.forecast.Forecast`.

        Parameters
        ----------
        fits
            With what the machine has; infinite if nothing is known.
        bearable
            With what the process is given at this moment if anything waits; 0 if nothing is known.
        """
        self._fits, self._bearable = fits, bearable
        self._door = (self._kept + _TOO_MANY * fits) / 2

    def opened(self, key: int) -> bool:
        """A stream has opened; return whether it is analysed from its beginning."""
        if self._last_ns > self._bound_s * 1e9 and self._kept and self._allowed == math.inf:
            # Not those that are there pay for a crowd that comes faster than a lag is judged.
            self._allowed = self._sustainable = float(self._kept)
            self._depth = _LEAST_DEPTH
            self._grown_s = 0.0
        kept = not self.shed and self._kept < max(1, min(self._allowed, self._door))
        if kept:
            self._kept += 1
        else:
            if not self.shed:
                self._trust = _BACK
            self.sheds += 1
        self._keys.append(key)
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
        if self._crowded(now_ns, lag_ns / 1e9):
            return self._keep(now_ns, lag_ns / 1e9, self._fits)
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

    def _crowded(self, now_ns: int, lag_s: float) -> bool:
        """Whether a lag bears the forecast out that those who wait outside are too many."""
        too_many = self.shed and self._kept > _TOO_MANY * self._fits
        small = lag_s <= self._bound_s * _CALM_IN_A_CROWD
        return bool(too_many) and not small and now_ns >= self._settled_ns

    def _cut(self, now_ns: int, lag_s: float, trend: float) -> Moves | None:
        # Twice in a row it was no standstill, but a load beyond all measure.
        stood_still, self._stood_still = self._stood_still, trend > _STALL
        if self._stood_still and not stood_still:
            return None
        if lag_s + trend * _FORESIGHT_S <= self._bound_s:
            return None
        before = self._kept
        fits = self._fits if before > _TOO_MANY * self._fits else before
        shrink = min((lag_s - self._calm_s) / _DRAIN_S, _FASTEST_DRAIN)
        bearable = min(self._bearable, before)
        kept = min(max(before * (1 - trend), bearable) / (1 + shrink), fits)
        if kept > before * (1 - _SMALLEST_CUT):
            return None
        moves = self._keep(now_ns, lag_s, kept)
        if moves is not None:
            self._remember(min(max(before * (1 - max(trend, 0.0)), bearable), fits), fits)
        return moves

    def _remember(self, sustainable: float, fits: float) -> None:
        failed = self._grown_s > self._until_sustainable_s / 2
        if failed:
            self._until_sustainable_s = min(2 * self._until_sustainable_s, _LONGEST_S)
        if self._fits < math.inf and not failed:
            # What was not foreseen may pass: the first attempt is to have all back that fit.
            sustainable = fits if self._allowed == math.inf else self._sustainable
        self._sustainable = max(1.0, sustainable)
        self._depth = max(_LEAST_DEPTH, 1 - self._kept / self._sustainable)
        self._allowed = self._kept
        self._grown_s = 0.0

    def _keep(self, now_ns: int, lag_s: float, streams: float) -> Moves | None:
        before = self._kept
        kept = max(1, math.floor(max(streams, before * (1 - _LARGEST_CUT))))
        if kept >= before:
            return None
        self._kept = kept
        self._trust = _BACK
        # Measurements from before the cut say nothing of the trend after it, and what it did
        # shows in the lag about as late as the lag is long.
        self._before_s = None
        self._settled_ns = now_ns + round(lag_s * 1e9)
        self.cuts += 1
        self.sheds += before - self._kept
        return Moves(self._keys[kept:before][::-1], [])

    def _take_back(self, elapsed_s: float) -> Moves | None:
        if self._allowed == math.inf and not self.shed:
            return None
        before = self._kept
        room = self._room(elapsed_s)
        if self._allowed < math.inf:
            self._grow(elapsed_s)
            room = min(room, self._allowed)
        else:
            room = min(room, self._fastest(before, elapsed_s))
        self._kept = max(before, min(len(self._keys), math.floor(max(1.0, room))))
        if self._grown_s >= _FORGOTTEN * self._until_sustainable_s and not self.shed:
            self._allowed = math.inf
            self._grown_s = 0.0
            self._until_sustainable_s = _SHORTEST_S
        return Moves([], self._keys[before : self._kept]) if self._kept > before else None

    def _room(self, elapsed_s: float) -> float:
        """Up to how many come back."""
        if len(self._keys) <= _TOO_MANY * self._fits:
            return math.inf
        few = self.shed <= _FEW * self._kept and self._trust < _TOO_MANY
        self._trust += (_TRUST_OF_FEW_S if few else _TRUST_S) * elapsed_s
        return self._trust * self._fits

    def _grow(self, elapsed_s: float) -> None:
        # Of a time in which nothing was measured, nothing is known.
        self._grown_s += min(elapsed_s, 5 * _INTERVAL_NS / 1e9)
        done = self._grown_s / self._until_sustainable_s
        cube = self._sustainable * (1 + self._depth * (done - 1) ** 3)
        self._allowed = min(cube, self._fastest(max(self._allowed, self._kept), elapsed_s))

    def _fastest(self, streams: float, elapsed_s: float) -> float:
        rate = _FASTEST_RETURN if self._fits == math.inf else _FASTEST_FITTING_RETURN
        # Whole streams come back, so of a few at least one.
        return streams * (1 + rate * elapsed_s) + elapsed_s
