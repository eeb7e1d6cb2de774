"""What a subscriber is told beside the events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from serd.protocol.events import Event


@dataclass(frozen=True)
class Missed:
    """Events that were published, wanted, and cannot be had any more.

    Parameters
    ----------
    events
        How many; None if they cannot be counted.
    stream
        Stream whose `seq` told so; None if its cursor or the daemon did.
    after, before
        They lie between these cursors, both excluded.
    """

    events: int | None
    stream: str | None
    after: int
    before: int


@dataclass(frozen=True)
class Restarted:
    """The daemon was started anew: all streams are new.

    Parameters
    ----------
    run_id
        Of the new run.
    previous_run_id
        Of the run that ended.
    last_cursor
        Newest event that was seen of it.
    continues
        Whether cursors go on from run to run, as they do with a journal: the end of the earlier run
        was then fetched where there is a replay socket. Without a journal they count from 1 again,
        and what was not seen of the earlier run is lost.
    """

    run_id: str
    previous_run_id: str
    last_cursor: int
    continues: bool = False


Item: TypeAlias = Event | Missed | Restarted
