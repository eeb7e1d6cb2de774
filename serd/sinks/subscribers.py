"""What each subscriber may hold and ask for: topics on XPUB, requests on the replay socket.

libzmq keeps every topic that a peer subscribes to, character by character, whether it is wanted
here or not; only to end the connection makes it forget them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
import zmq

from serd.curve import Connection, Door

_log = structlog.get_logger(__name__)

MAX_NOTICE_BYTES: Final = 1024
"""Longest frame that a subscriber may send; libzmq ends the connection of a longer one."""
_MOST_TOPIC_BYTES: Final = 1 << 20
_MOST_CONNECTIONS: Final = 100_000
_NS: Final = 1_000_000_000
_TELL_NS: Final = 60 * _NS


@dataclass(frozen=True, slots=True)
class SubscriberLimits:
    """What one peer may have. 0 is no limit.

    Attributes
    ----------
    subscriptions
        Topics at once, over all its connections; of them all together at most a mebibyte.
    replays_s
        Requests a second; one second's worth may come at once.
    """

    subscriptions: int = 10_000
    replays_s: int = 0


@dataclass(slots=True)
class _Held:
    who: str
    topics: int = 0
    size: int = 0


@dataclass(slots=True)
class _Allowance:
    at_ns: int
    left: float


class Subscribers:
    """Counts what subscribers hold. One thread, but for `turn_out`.

    Parameters
    ----------
    limits
        Of each peer.
    door
        Tells whom a message is from and what that peer may.
    """

    def __init__(self, limits: SubscriberLimits, door: Door) -> None:
        self._limits = limits
        self._door = door
        self._held: dict[Connection, _Held] = {}
        self._totals: dict[str, _Held] = {}
        self._allowances: dict[str, _Allowance] = {}
        self._told_ns: dict[tuple[str, str], int] = {}
        self.counts: Counter[str] = Counter(
            {"subscriptions_refused": 0, "replay_requests_refused": 0}
        )

    def subscribe(self, notice: zmq.Frame, now_ns: int) -> bool:
        """Whether a subscription is within the limits; if not, its connection has been ended."""
        connection = Connection.behind(notice)
        if connection is None:
            # From within the process, or from a peer that has gone.
            return True
        who, size = self._door.who(notice), len(notice)
        if not self._door.may(who, "subscribe"):
            return self._refuse(connection, who, "removed", now_ns)
        if connection not in self._held and len(self._held) >= _MOST_CONNECTIONS:
            self._recount()
        held = self._held.setdefault(connection, _Held(who))
        total = self._totals.setdefault(who, _Held(who))
        if self._is_over(total, size):
            # Connections that have ended are found out about only here.
            self._recount()
            total = self._totals.setdefault(who, _Held(who))
            if self._is_over(total, size):
                return self._refuse(connection, who, "subscriptions", now_ns)
        for part in (held, total):
            part.topics += 1
            part.size += size
        return True

    def unsubscribe(self, notice: zmq.Frame) -> None:
        """A subscription has been taken back."""
        connection = Connection.behind(notice)
        held = None if connection is None else self._held.get(connection)
        if held is None:
            return
        for part in (held, self._totals.get(held.who)):
            if part is not None:
                part.topics -= 1
                part.size -= len(notice)

    def may_replay(self, request: zmq.Frame, now_ns: int) -> str | None:
        """None if a request may be answered, else the code of the error to answer with."""
        who = self._door.who(request)
        if not self._door.may(who, "replay"):
            connection = Connection.behind(request)
            if connection is not None:
                connection.shut()
            self.counts["replay_requests_refused"] += 1
            return "refused"
        rate = self._limits.replays_s
        if not rate:
            return None
        allowance = self._allowances.get(who)
        if allowance is None:
            if len(self._allowances) >= _MOST_CONNECTIONS:
                self._allowances.clear()
            allowance = self._allowances[who] = _Allowance(now_ns, rate)
        allowance.left = min(rate, allowance.left + (now_ns - allowance.at_ns) * rate / _NS)
        allowance.at_ns = now_ns
        if allowance.left < 1:
            self.counts["replay_requests_refused"] += 1
            self._tell(who, "replay_requests", now_ns)
            return "busy"
        allowance.left -= 1
        return None

    def turn_out(self, may: Callable[[str], bool]) -> int:
        """End the connections of subscribers that may be so no longer; how many. Any thread."""
        return sum(
            connection.shut() for connection, held in list(self._held.items()) if not may(held.who)
        )

    def _is_over(self, total: _Held, size: int) -> bool:
        return total.topics >= self._limits.subscriptions or total.size + size > _MOST_TOPIC_BYTES

    def _refuse(self, connection: Connection, who: str, reason: str, now_ns: int) -> bool:
        connection.shut()
        self.counts["subscriptions_refused"] += 1
        self._tell(who, reason, now_ns)
        return False

    def _recount(self) -> None:
        self._held = {one: held for one, held in self._held.items() if one.alive}
        self._totals = {}
        for held in self._held.values():
            total = self._totals.setdefault(held.who, _Held(held.who))
            total.topics += held.topics
            total.size += held.size

    def _tell(self, who: str, reason: str, now_ns: int) -> None:
        if now_ns - self._told_ns.get((who, reason), -_TELL_NS) < _TELL_NS:
            return
        if len(self._told_ns) >= _MOST_CONNECTIONS:
            self._told_ns.clear()
        self._told_ns[who, reason] = now_ns
        _log.warning("subscriber.refused", peer=who, reason=reason)
