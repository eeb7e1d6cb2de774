"""Puts the messages of one stream in order and tells loss from suppressed silence.

Positions come from `first_sample`, order from `sequence`. A message is waited for until one
arrives whose sequence is more than `window` ahead of it; from then on it is lost, and late if it
still comes.

A sequence that is far from the expected one is believed only when the next message confirms it,
so that one stray message cannot throw a stream off its place: the rule, and its limits, are those
of RFC 3550, appendix A.1 (MAX_DROPOUT, MAX_MISORDER), with the first message held instead of
dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from serd.protocol.tap import Flag, Header

P = TypeVar("P")

MAX_DROPOUT: Final = 3000
"""Messages that may be missing before a jump ahead needs a second message to be believed."""
MAX_MISORDER: Final = 100
"""Messages that one may be behind before it counts as another numbering, not as late."""
RESTART_RUN: Final = 8
"""So many old messages, and the window's, may come in a row before they are another numbering."""

_MASK: Final = 2**32 - 1
_HALF: Final = 2**31
_START: Final = int(Flag.START)
_DISCONTINUITY: Final = int(Flag.DISCONTINUITY)
_START_OR_DISCONTINUITY: Final = _START | _DISCONTINUITY
_REMEMBERED_LOSSES: Final = 32


class Deliver(NamedTuple, Generic[P]):
    """The next message in order.

    Its samples lie at ``header.first_sample``. A message without samples may carry an older
    index; it has no position.
    """

    header: Header
    samples: int
    payload: P


class Lost(NamedTuple):
    """Samples ``[first_sample, first_sample + samples)`` will never come.

    `samples` is 0 where only messages without samples were lost, or the tap does not know how
    much it lost; `messages` is 0 where the tap itself lost them.
    """

    first_sample: int
    samples: int
    messages: int


class Silence(NamedTuple):
    """The tap left out samples ``[first_sample, first_sample + samples)`` on purpose."""

    first_sample: int
    samples: int


class Duplicate(NamedTuple):
    """The message was already delivered or waits to be; it is dropped."""

    header: Header
    samples: int


class Late(NamedTuple, Generic[P]):
    """The message was given up before it came, or fits nowhere; its samples are dropped.

    Its payload is for what else it may say: metadata can forbid what its absence allowed.
    """

    header: Header
    samples: int
    payload: P


class Restart(NamedTuple):
    """The publisher began again: what follows belongs to another life of the stream.

    `reason`: a start flag out of sequence; another numbering; `first_sample` went back; or
    another rate or number of channels.
    """

    reason: Literal["start", "sequence", "first_sample", "format"]


Step: TypeAlias = Deliver[P] | Lost | Silence | Duplicate | Late[P] | Restart


class Sequencer(Generic[P]):
    """Order of one stream.

    Parameters
    ----------
    window
        Messages that may overtake another one; 0 puts nothing right and never waits.

    Notes
    -----
    Between two `Restart` steps the delivered samples are strictly ascending and never double.
    Holds at most ``window + 1`` messages.
    """

    __slots__ = (
        "_channels",
        "_expected",
        "_given_up",
        "_joined",
        "_missed",
        "_pending",
        "_position",
        "_rate",
        "_run",
        "_run_expected",
        "_run_next",
        "_start",
        "_suspect",
        "_waiting",
        "_window",
    )

    def __init__(self, window: int) -> None:
        if not 0 <= window < MAX_MISORDER:
            raise ValueError(f"window must be 0 to {MAX_MISORDER - 1} messages, not {window}")
        self._window = window
        self._expected = -1
        self._position = 0
        self._rate = 0
        self._channels = 0
        self._joined = 0
        self._missed = 0
        self._pending: dict[int, tuple[Header, int, P]] = {}
        self._suspect: tuple[Header, int, P] | None = None
        self._waiting = False
        self._start: Header | None = None
        self._given_up: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED_LOSSES)
        self._run = 0
        self._run_next = -1
        self._run_expected = -1

    @property
    def waiting(self) -> bool:
        """Whether messages are held back until others come; `flush` releases them."""
        return self._waiting

    @property
    def position(self) -> int:
        """Index of the sample after the last one delivered."""
        return self._position

    def expects(self, sample_rate_hz: int, channels: int) -> tuple[int, int] | None:
        """Sequence and first sample of the next message of a format, if nothing else is open.

        Audio with just these, and without a flag for start or discontinuity, is delivered as it
        comes. Whoever knows may deliver such messages without asking, and say so by `go_on`.
        """
        if self._waiting or (self._rate, self._channels) != (sample_rate_hz, channels):
            return None
        return self._expected, self._position

    def go_on(self, sequence: int, position: int) -> None:
        """Take note that messages in order were delivered, up to those that `expects` then says."""
        self._expected = sequence
        self._position = position

    def push(self, header: Header, samples: int, payload: P) -> Sequence[Step[P]]:
        """Take a message as it arrived and say what to do, in order.

        Parameters
        ----------
        header
            The message's header.
        samples
            Samples per channel in its payload.
        payload
            Handed back by `Deliver`.
        """
        if (
            header.sequence == self._expected
            and header.first_sample == self._position
            and not self._waiting
            and not header.flags & _START_OR_DISCONTINUITY
            and header.sample_rate_hz == self._rate
            and header.channels == self._channels
        ):
            self._expected = (header.sequence + 1) & _MASK
            self._position += samples
            return (Deliver(header, samples, payload),)
        steps: list[Step[P]] = []
        self._place(steps, header, samples, payload)
        self._waiting = bool(self._pending) or self._suspect is not None
        return steps

    def flush(self) -> Sequence[Step[P]]:
        """Give up all that is missing and release what is held: the stream ends or pauses."""
        steps: list[Step[P]] = []
        self._drop_suspect(steps)
        for sequence in self._pending_in_order():
            self._take(steps, sequence)
        self._waiting = False
        return steps

    def _place(self, steps: list[Step[P]], header: Header, samples: int, payload: P) -> None:
        if self._expected < 0:
            self._adopt(steps, header, samples, payload)
            return
        ahead = (header.sequence - self._expected + _HALF & _MASK) - _HALF
        if header.flags & _START and ahead:
            if header == self._start and -self._same_start_within(header) <= ahead < 0:
                steps.append(Duplicate(header, samples))
            else:
                self._restart(steps, "start", header, samples, payload)
            return
        if ahead > MAX_DROPOUT or ahead < -MAX_MISORDER:
            self._doubt(steps, ahead, header, samples, payload)
            return
        self._drop_suspect(steps)
        if ahead < 0:
            self._old(steps, header, samples, payload)
            return
        if header.sequence in self._pending:
            steps.append(Duplicate(header, samples))
            return
        self._run = 0
        self._pending[header.sequence] = (header, samples, payload)
        if ahead > self._window:
            self._give_up_before(steps, (header.sequence - self._window) & _MASK)
        while self._expected in self._pending:
            self._take(steps, self._expected)

    def _same_start_within(self, header: Header) -> int:
        # A publisher that began again has another time; without times, only a start that is
        # very near can be the same one.
        return MAX_MISORDER if header.captured_at_ns else self._window + 1

    def _adopt(self, steps: list[Step[P]], header: Header, samples: int, payload: P) -> None:
        self._given_up.clear()
        self._run = 0
        self._missed = 0
        self._joined = header.sequence
        self._expected = (header.sequence + 1) & _MASK
        self._begin_life(header)
        self._position = header.first_sample + samples
        steps.append(Deliver(header, samples, payload))

    def _begin_life(self, header: Header) -> None:
        self._start = header if header.flags & _START else None
        self._rate = header.sample_rate_hz
        self._channels = header.channels

    def _restart(
        self,
        steps: list[Step[P]],
        reason: Literal["start", "sequence"],
        header: Header,
        samples: int,
        payload: P,
    ) -> None:
        steps.extend(self.flush())
        steps.append(Restart(reason))
        self._adopt(steps, header, samples, payload)

    def _doubt(
        self, steps: list[Step[P]], ahead: int, header: Header, samples: int, payload: P
    ) -> None:
        suspect = self._suspect
        if suspect is None or header.sequence != (suspect[0].sequence + 1) & _MASK:
            self._drop_suspect(steps)
            self._suspect = (header, samples, payload)
            return
        self._suspect = None
        if ahead < 0:
            self._restart(steps, "sequence", *suspect)
        else:
            self._pending[suspect[0].sequence] = suspect
            self._give_up_before(steps, suspect[0].sequence)
            self._take(steps, self._expected)
        steps.extend(self.push(header, samples, payload))

    def _drop_suspect(self, steps: list[Step[P]]) -> None:
        if self._suspect is not None:
            steps.append(Late(*self._suspect))
            self._suspect = None

    def _old(self, steps: list[Step[P]], header: Header, samples: int, payload: P) -> None:
        if header.sequence == self._run_next and self._expected == self._run_expected:
            self._run += 1
        else:
            self._run = 1
            self._run_expected = self._expected
        self._run_next = (header.sequence + 1) & _MASK
        if self._run > self._window + RESTART_RUN:
            self._restart(steps, "sequence", header, samples, payload)
        elif self._was_delivered(header.sequence):
            steps.append(Duplicate(header, samples))
        else:
            steps.append(Late(header, samples, payload))

    def _was_delivered(self, sequence: int) -> bool:
        if sequence - self._joined & _MASK >= _HALF:
            return False
        return not any(sequence - first & _MASK < count for first, count in self._given_up)

    def _give_up_before(self, steps: list[Step[P]], sequence: int) -> None:
        for pending in self._pending_in_order():
            if sequence - pending & _MASK >= _HALF or pending == sequence:
                break
            self._take(steps, pending)
        self._miss(sequence)

    def _miss(self, sequence: int) -> None:
        count = sequence - self._expected & _MASK
        if count:
            self._given_up.append((self._expected, count))
            self._missed += count
            self._expected = sequence

    def _pending_in_order(self) -> list[int]:
        return sorted(self._pending, key=lambda sequence: sequence - self._expected & _MASK)

    def _take(self, steps: list[Step[P]], sequence: int) -> None:
        header, samples, payload = self._pending.pop(sequence)
        self._miss(sequence)
        self._expected = (sequence + 1) & _MASK
        jump = header.first_sample - self._position
        missed, self._missed = self._missed, 0
        other_format = header.sample_rate_hz != self._rate or header.channels != self._channels
        went_back = jump < 0 and (samples > 0 or bool(header.flags & _START))
        if other_format or went_back:
            if missed:
                steps.append(Lost(self._position, 0, missed))
            steps.append(Restart("format" if other_format else "first_sample"))
            self._begin_life(header)
            self._position = header.first_sample + samples
        else:
            jump = max(jump, 0)
            if missed or header.flags & _DISCONTINUITY:
                steps.append(Lost(self._position, jump, missed))
            elif jump:
                steps.append(Silence(self._position, jump))
            self._position += jump + samples
            if header.flags & _START:
                self._start = header
        steps.append(Deliver(header, samples, payload))
