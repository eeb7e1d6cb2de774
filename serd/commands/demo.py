"""``serd demo``: a daemon, a tap and a subscriber, each as it would be in earnest."""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import click

from serd.bench.child import ChildDaemon, child_daemon
from serd.client import Missed, Restarted, Subscriber
from serd.commands.common import Output, output
from serd.commands.playing import Recording, play, tap_socket
from serd.commands.render import HEADING, line
from serd.errors import SerdError
from serd.protocol.events import (
    DaemonEvent,
    EmotionEvent,
    Event,
    SpeechEvent,
    StreamEvent,
    UtteranceEvent,
)
from serd.protocol.tap import Metadata
from serd.types import Encoding, Role

_STREAM = "two-voices"
_STOP_S = 30.0
_GRACE_S = 30.0


class DemoError(SerdError):
    """The demonstration did not show what it should."""


@click.command("demo", short_help="See a daemon at work, nothing to set up.")
def command() -> None:
    """Show a daemon at work: half a minute, nothing to set up.

    Starts a real daemon in a process of its own on free ports of this machine, plays a recorded
    conversation between two synthetic voices into it over ZeroMQ, in real time and encoded as on
    the telephone (8 kHz, G.711 µ-law), and prints the daemon's events as they come. The latency
    is the time from the arrival of the last sample of a segment to its event. The exit status is 0
    if every kind of event that belongs to speech was seen and the daemon ended in order.

    \b
    Example:
      serd demo
    """
    console = output()
    with (
        resources.as_file(resources.files("serd.demo").joinpath("two-voices.flac")) as path,
        child_daemon() as daemon,
    ):
        began = time.monotonic()
        console.print("Starting a daemon …", style="dim")
        ready = daemon.wait_ready()
        tap = daemon.tap
        console.print(
            f"Ready after {time.monotonic() - began:.1f} s: audio on {tap},"
            f" events on {ready['publish'][0]}",
            style="dim",
        )
        seen = _Seen()
        # From the first event on: the daemon's own "ready".
        first = f"{ready['run_id']}-0"
        with Subscriber(ready["publish"][0], replay=ready["replay"][0], after=first) as events:
            _play_and_print(path, tap, events, console, seen, daemon)
            daemon.end()
            _print_until_stopped(events, console, seen)
        status = daemon.wait()
        missing = seen.missing(status)
        if missing:
            raise DemoError(
                "demo_incomplete", f"not seen: {', '.join(missing)}\n{daemon.last_words()}"
            )
    latencies = seen.latencies_ms
    console.print(
        f"\n{len(latencies)} emotion events; latency {statistics.median(latencies):.0f} ms"
        f" (median), {max(latencies):.0f} ms (worst).",
        style="bold green",
    )
    console.print("Now with a recording of yours: serd replay FILE", style="dim")


@dataclass
class _Seen:
    """Ticks off what a conversation must bring about."""

    kinds: set[str] = field(default_factory=set)
    latencies_ms: list[float] = field(default_factory=list)

    def note(self, event: Event) -> None:
        if isinstance(event, StreamEvent | SpeechEvent | DaemonEvent):
            self.kinds.add(event.state)
        elif isinstance(event, EmotionEvent):
            self.latencies_ms.append(event.latency_ms.total)
        elif isinstance(event, UtteranceEvent):
            self.kinds.add("utterance")

    def missing(self, exit_status: int) -> list[str]:
        wanted = ("ready", "opened", "onset", "offset", "utterance", "closed", "stopped")
        missing = [kind for kind in wanted if kind not in self.kinds]
        if len(self.latencies_ms) < 3:
            missing.append("several emotion events")
        if exit_status != 0:
            missing.append(f"exit status 0 of the daemon (it was {exit_status})")
        return missing


def _play_and_print(
    path: Path, tap: str, events: Subscriber, console: Output, seen: _Seen, daemon: ChildDaemon
) -> None:
    recording = Recording(path)
    console.print(f"Playing {recording.duration_s:.0f} s of conversation into it.\n", style="dim")
    console.print(HEADING)
    failures: list[SerdError] = []

    def send() -> None:
        try:
            with tap_socket(tap) as sender:
                play(
                    recording,
                    _STREAM,
                    sender,
                    encoding=Encoding.MULAW,
                    metadata=Metadata(call_id="demo", roles=(Role.CUSTOMER,)),
                )
        except SerdError as error:
            failures.append(error)

    threading.Thread(target=send, daemon=True).start()
    deadline = time.monotonic() + recording.duration_s + _GRACE_S
    while "closed" not in seen.kinds and time.monotonic() < deadline:
        if failures:
            raise failures[0]
        daemon.check()
        _print_next(events, console, seen, 0.5)


def _print_until_stopped(events: Subscriber, console: Output, seen: _Seen) -> None:
    deadline = time.monotonic() + _STOP_S
    while "stopped" not in seen.kinds and time.monotonic() < deadline:
        _print_next(events, console, seen, 0.5)


def _print_next(events: Subscriber, console: Output, seen: _Seen, timeout_s: float) -> None:
    item = events.receive(timeout_s)
    if item is None or isinstance(item, Missed | Restarted):
        return
    seen.note(item)
    if not (isinstance(item, DaemonEvent) and item.state == "heartbeat"):
        console.print(line(item))
