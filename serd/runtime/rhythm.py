"""How often a thread looks for work that comes in small pieces.

A round of the ingest or the speech thread has a fixed cost besides what its messages and frames
cost (some 50 and 150 µs). Threads that run at every wake pay it for a message or two at a time: at
1,000 calls a message comes every 20 µs. So after a round a thread rests, in proportion to what the
round took, and what comes meanwhile is done together. In proportion, because that is right at any
load: with one call a round is over long before the next message and nothing is ever late, and with
many the rest grows with the load up to a limit, which bounds what it adds to the latency.
"""

from __future__ import annotations

# Fixed costs cannot take more of a core than one in so many.
_PROPORTION = 16


def rest_s(took_s: float, longest_s: float) -> float:
    """How long to sleep after a round.

    Parameters
    ----------
    took_s
        Length of the round, in seconds.
    longest_s
        Longest distance between the beginnings of two rounds, as far as it is up to resting.
    """
    return max(0.0, min(_PROPORTION * took_s, longest_s) - took_s)
