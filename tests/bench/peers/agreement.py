"""How far two programs say the same of the same audio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.peers.theirs import Segments

_SAME = 0.8


@dataclass(frozen=True)
class Agreement:
    """Segments of one program, those of them that the other has too, and equal labels of these.

    Two segments are the same when what they share is at least 80 % of what they cover together:
    detectors place boundaries some frames apart, and later windows follow from the first.
    """

    segments: int
    matching: int
    equal: int

    @property
    def labels(self) -> float | None:
        """Share of equal labels among the matching segments."""
        return self.equal / self.matching if self.matching else None


def agreement(ours: Sequence[Segments], theirs: Sequence[Segments]) -> Agreement:
    """Compare conversation by conversation."""
    total = matching = equal = 0
    for mine, other in zip(ours, theirs, strict=True):
        for start, end, label in mine:
            total += 1
            overlap, its_label = max(
                ((_overlap(start, end, a, b), its) for a, b, its in other), default=(0.0, "")
            )
            matching += overlap >= _SAME
            equal += overlap >= _SAME and its_label == label
    return Agreement(total, matching, equal)


def _overlap(start: int, end: int, other_start: int, other_end: int) -> float:
    shared = min(end, other_end) - max(start, other_start)
    return max(shared, 0) / (max(end, other_end) - min(start, other_start))
