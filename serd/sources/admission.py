"""Who gets a row: limits, and the rows that are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from serd.rows import RowPool, StreamInfo
from serd.sources.stream import ChannelRow
from serd.types import native_rate_hz


class Admission:
    """Lends rows to streams and tells of those that are refused.

    Parameters
    ----------
    pools
        A row pool for each native rate.
    max_streams
        Most streams at once.
    on_refused
        Called with the info of a stream, the source index and the reason, when one is refused.
    counts
        Where to count ``opened``, ``closed`` and ``refused.<reason>``.
    """

    def __init__(
        self,
        pools: Mapping[int, RowPool],
        max_streams: int,
        on_refused: Callable[[StreamInfo, int, str], None],
        counts: Counter[str],
    ) -> None:
        self._pools = pools
        self._max_streams = max_streams
        self._on_refused = on_refused
        self._counts = counts
        self._names: set[str] = set()

    def __len__(self) -> int:
        return len(self._names)

    def admit(self, info: StreamInfo, first_sample: int, patient: bool) -> ChannelRow | str:
        """A row for a stream that begins at a source index, or why there is none for it."""
        if info.stream in self._names:
            return "duplicate_stream"
        pool = self._pools[native_rate_hz(info.sample_rate_hz)]
        row = pool.acquire() if len(self._names) < self._max_streams else None
        if row is None:
            return "max_streams"
        self._names.add(info.stream)
        self._counts["opened"] += 1
        return ChannelRow(pool, row, info, first_sample, patient)

    def refuse(self, info: StreamInfo, at_sample: int, reason: str) -> None:
        """Tell and count a stream that is refused without having had a row."""
        self._counts[f"refused.{reason}"] += 1
        self._on_refused(info, at_sample, reason)

    def leave(self, channel: ChannelRow, refused_as: str | None) -> None:
        """A stream has ended, or is refused after all for a reason."""
        self._names.discard(channel.info.stream)
        self._counts["closed" if refused_as is None else f"refused.{refused_as}"] += 1
