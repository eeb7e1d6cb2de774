"""How long a segment will wait for the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serd.inference.worker import Result

# Weight of the newest batch in the mean.
_NEWEST = 0.1
# A batch during which the thread had no processor can seem to have taken a hundred times as long,
# and says nothing of the next one. What lasts shows in a few batches all the same.
_LARGEST_FACTOR = 3.0


class ExpectedWait:
    """The wait of a segment that is queued now, from the queue's length and the model's pace.

    How long the oldest segment *has* waited would tell of a change of the load only as late as the
    queue is long.

    Parameters
    ----------
    queued
        Gives the number of segments that wait.
    capacity
        Segments that the queue holds.
    workers
        Threads that take from it.
    """

    def __init__(self, queued: Callable[[], int], capacity: int, workers: int = 1) -> None:
        self._queued = queued
        self._workers = workers
        self._half = max(1, capacity // 2)
        self._segment_ns = 0.0
        self._finished_ns = 0
        self._behind = False

    def learn(self, results: Sequence[Result]) -> None:
        """Take the times of a batch. Of several threads at once one may go unheard."""
        first = results[0]
        if self._behind and first.finished_ns > self._finished_ns:
            # While segments wait, from the end of one batch to the end of the next is what they
            # wait for: the other threads' batches and the telling of results are in it.
            took_ns = (first.finished_ns - self._finished_ns) / first.batch
        else:
            took_ns = (first.finished_ns - first.started_ns) / first.batch / self._workers
        self._finished_ns = first.finished_ns
        self._behind = self._queued() > 0
        if not self._segment_ns:
            self._segment_ns = took_ns
        took_ns = min(took_ns, _LARGEST_FACTOR * self._segment_ns)
        self._segment_ns += _NEWEST * (took_ns - self._segment_ns)

    @property
    def ns(self) -> int:
        """The wait in nanoseconds; 0 while nothing is known of the model's pace."""
        return int(self._queued() * self._segment_ns)

    def exceeds(self, limit_ns: int) -> bool:
        """Whether the wait is longer than this, or half of the queue is full."""
        return self._queued() >= self._half or self.ns > limit_ns
