"""Who gets a row: limits, policy, and the rows that are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from serd.rows import RowPool, StreamInfo
from serd.sources.stream import ChannelRow
from serd.types import Role, native_rate_hz


class Admission:
    """Lends rows to streams that may be analysed and refuses the others.

    Parameters
    ----------
    pools
        A row pool for each native rate.
    max_streams
        Most streams at once.
    refuse_roles
        Roles that no model may see.
    on_refused
        Called with the info of a stream, the source index and the reason, when one is refused.
    counts
        Where to count ``opened``, ``closed`` and ``refused.<reason>``.
    """

    def __init__(
        self,
        pools: Mapping[int, RowPool],
        max_streams: int,
        refuse_roles: frozenset[Role],
        on_refused: Callable[[StreamInfo, int, str], None],
        counts: Counter[str],
    ) -> None:
        self._pools = pools
        self._max_streams = max_streams
        self._refuse_roles = refuse_roles
        self._on_refused = on_refused
        self._counts = counts
        self._names: set[str] = set()

    def __len__(self) -> int:
        return len(self._names)

    def may_not_be_heard(self, role: Role) -> bool:
        """Whether policy keeps this role from every model."""
        return role in self._refuse_roles

    def admit(self, info: StreamInfo, first_sample: int, patient: bool) -> ChannelRow | None:
        """A row for a stream that begins at a source index; None if it is refused."""
        pool = self._pools[native_rate_hz(info.sample_rate_hz)]
        row: int | None = None
        if self.may_not_be_heard(info.role):
            reason = f"role_{info.role}"
        elif info.stream in self._names:
            reason = "duplicate_stream"
        else:
            reason = "max_streams"
            if len(self._names) < self._max_streams:
                row = pool.acquire()
        if row is None:
            self._counts[f"refused.{reason}"] += 1
            self._on_refused(info, first_sample, reason)
            return None
        self._names.add(info.stream)
        self._counts["opened"] += 1
        return ChannelRow(pool, row, info, first_sample, patient)

    def leave(self, channel: ChannelRow, refused_as: str | None) -> None:
        """A stream has ended, or is refused after all for a reason."""
        self._names.discard(channel.info.stream)
        self._counts["closed" if refused_as is None else f"refused.{refused_as}"] += 1
