"""The replay socket: requests in, answers out, at once or when the journal has been read."""

from __future__ import annotations

from typing import Final

import zmq

from serd.channel import Waker
from serd.clock import Clock
from serd.errors import MessageError
from serd.protocol.replay import ReplayError, decode_request, encode_reply
from serd.sinks.answers import Answer, Answers
from serd.sinks.subscribers import Subscribers

_REQUESTS_A_TURN: Final = 8

_REFUSALS: Final = {
    "busy": "too many requests: ask again in a second",
    "refused": "not permitted",
}


class ReplayDesk:
    """Takes requests for past events from a ROUTER socket and answers them. One thread.

    Parameters
    ----------
    answers
        What there is to say.
    subscribers
        Who may ask, and how often.
    clock
        For how often.
    """

    def __init__(self, answers: Answers, subscribers: Subscribers, clock: Clock) -> None:
        self._answers = answers
        self._subscribers = subscribers
        self._clock = clock
        self.counts = dict.fromkeys(
            ("replay_requests", "replay_requests_bad", "replay_answers_cut_short", "replay_events"),
            0,
        )
        """Monotonic counters. Any thread."""

    def start(self, waker: Waker) -> None:
        """Begin to read the journal; `waker` is woken when there is something for `send_late`."""
        self._answers.start(waker)

    def stop(self) -> None:
        """Read the journal no more."""
        self._answers.stop()

    def serve(self, socket: zmq.Socket[bytes]) -> None:
        """Take some of the requests that wait; others have their turn then."""
        for _ in range(_REQUESTS_A_TURN):
            try:
                peer, *frames = socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            self.counts["replay_requests"] += 1
            refusal = self._subscribers.may_replay(peer, self._clock.monotonic_ns())
            if refusal is not None:
                answer: Answer = [ReplayError(code=refusal, message=_REFUSALS[refusal])]
            else:
                answer = self._answer(peer.bytes, [frame.bytes for frame in frames])
            self._reply(socket, peer.bytes, answer)

    def send_late(self, socket: zmq.Socket[bytes]) -> None:
        """Send the answers that the journal has given by now."""
        for peer, answer in self._answers.late_answers():
            self._reply(socket, peer, answer)

    def _answer(self, peer: bytes, parts: list[bytes]) -> Answer:
        try:
            return self._answers.to(peer, decode_request(parts))
        except MessageError as error:
            self.counts["replay_requests_bad"] += 1
            return [ReplayError(code=error.code, message=error.message)]

    def _reply(self, socket: zmq.Socket[bytes], peer: bytes, answer: Answer) -> None:
        self.counts["replay_events"] += max(0, len(answer) - 1)
        try:
            for reply in answer:
                socket.send_multipart([peer, *encode_reply(reply)], zmq.DONTWAIT)
        except zmq.ZMQError as failure:
            # The peer is gone or does not read.
            if failure.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            self.counts["replay_answers_cut_short"] += 1
