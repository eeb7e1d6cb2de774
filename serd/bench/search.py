"""The most streams that hold, by trying."""

from __future__ import annotations

from collections.abc import Callable

TOLERANCE = 0.05


def find_most(
    holds: Callable[[int], bool], first: int, limit: int, tolerance: float = TOLERANCE
) -> int:
    """The most streams for which `holds`, to within a share of `tolerance`.

    Doubles from `first` until it does not hold, then halves the distance. If it holds for a number
    it is taken to hold for all below.

    Returns
    -------
    int
        The largest number that was tried and held, at most `limit`; 0 if none did.
    """
    most, least_bad = 0, limit + 1
    tried = min(max(first, 1), limit)
    while least_bad - most > max(1, tolerance * most):
        if holds(tried):
            most = tried
            tried = 2 * tried if least_bad > limit else (most + least_bad) // 2
        else:
            least_bad = tried
            tried = (most + least_bad) // 2
        tried = min(max(tried, 1), limit)
        if most == limit:
            break
    return most


def confirm(holds: Callable[[int], bool], streams: int, tolerance: float = TOLERANCE) -> int:
    """Try `streams` again, more thoroughly, and ever less of them until it holds; 0 for never."""
    while streams and not holds(streams):
        streams = min(streams - 1, round(streams * (1 - tolerance)))
    return streams
