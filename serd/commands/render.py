"""Events as lines for people."""

from __future__ import annotations

from typing import assert_never

from rich.text import Text

from serd.protocol.events import (
    DaemonEvent,
    EmotionEvent,
    Event,
    GapEvent,
    ShadowEvent,
    SpeechEvent,
    StreamEvent,
    UtteranceEvent,
)
from serd.types import Role

_COLOURS = {
    "neutral": "white",
    "calm": "cyan",
    "happy": "green",
    "sad": "blue",
    "angry": "red",
    "fearful": "magenta",
    "disgust": "yellow",
    "surprised": "bright_yellow",
}
# A line fits into 80 columns.
_STREAM_CELLS = 10
_DETAIL_CELLS = 42
_BAR_CELLS = 5

HEADING = Text(
    f"{'time':>9} {'stream':<{_STREAM_CELLS}} {'event':<9} {'':<{_DETAIL_CELLS}}latency",
    style="dim",
)
"""Heading of the lines that `line` makes. A label with a question mark is one that the model
abstains from; what follows the bar, or the length of the utterance, is the runner-up."""


def line(event: Event) -> Text:
    """One event as one line: time in the stream, stream, type, what happened, latency."""
    if isinstance(event, DaemonEvent):
        return _row("", event.name, "daemon", _daemon(event), "dim")
    if isinstance(event, StreamEvent):
        return _row(_time(event.at_s), event.stream, "stream", _stream(event), "bold")
    if isinstance(event, SpeechEvent):
        reason = f" ({event.reason})" if event.reason else ""
        detail = Text(f"{event.state} of utterance {event.utterance}{reason}")
        return _row(_time(event.at_s), event.stream, "speech", detail)
    if isinstance(event, EmotionEvent):
        score = event.scores.get(event.label, 0.0)
        filled = round(score * _BAR_CELLS)
        bar = Text("━" * filled, style=_COLOURS.get(event.label, ""))
        bar += Text("─" * (_BAR_CELLS - filled), style="dim")
        detail = _scores(event.label, event.scores, event.abstained, bar)
        if event.padded:
            detail += Text(" short", style="dim")
        latency_ms = event.latency_ms.total
        return _row(_time(event.end_s), event.stream, "emotion", detail, latency_ms=latency_ms)
    if isinstance(event, UtteranceEvent):
        length = Text(f"{event.end_s - event.start_s:4.1f}s")
        if event.label is None:
            detail = length + Text(" no segment was judged", style="yellow")
        else:
            detail = _scores(event.label, event.scores, event.abstained, length)
        latency_ms = event.latency_ms.total
        return _row(_time(event.end_s), event.stream, "utterance", detail, "bold", latency_ms)
    if isinstance(event, GapEvent):
        detail = Text(f"{event.lost_ms:.0f} ms: {event.reason}", style="yellow")
        return _row(_time(event.end_s), event.stream, "gap", detail, "yellow")
    if isinstance(event, ShadowEvent):
        detail = _scores(event.label, event.scores, event.abstained, Text("on trial  "))
        latency_ms = event.latency_ms.total
        return _row(_time(event.end_s), event.stream, "shadow", detail, "dim", latency_ms)
    assert_never(event)


def _row(
    time: str,
    stream: str,
    kind: str,
    detail: Text,
    style: str = "",
    latency_ms: float | None = None,
) -> Text:
    name = stream if len(stream) <= _STREAM_CELLS else "…" + stream[1 - _STREAM_CELLS :]
    text = Text(f"{time:>9} ")
    text += Text(f"{name:<{_STREAM_CELLS}} ", style="cyan")
    text += Text(f"{kind:<9} ", style=style)
    text += detail
    if latency_ms is not None:
        text += Text(" " * (_DETAIL_CELLS - detail.cell_len))
        text += Text(f"{latency_ms:4.0f} ms", style="dim")
    return text


def _time(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def _scores(label: str, scores: dict[str, float], abstained: bool, middle: Text) -> Text:
    """The label and its score, `middle`, and the runner-up."""
    shown = f"{label}?" if abstained else label
    text = Text(f"{shown:<10} ", style="dim" if abstained else _COLOURS.get(label, ""))
    text += Text(f"{scores.get(label, 0.0):.2f} ") + middle
    others = [(score, name) for name, score in scores.items() if name != label]
    if others:
        score, name = max(others)
        text += Text(f" {name} {score:.2f}", style="dim")
    return text


def _stream(event: StreamEvent) -> Text:
    style = "yellow" if event.state == "refused" else ""
    text = Text(event.state, style=style)
    if event.state == "opened":
        text += Text(
            f", {event.sample_rate_hz} Hz"
            + ("" if event.encoding == "none" else f" {event.encoding}")
        )
        if event.role is not Role.UNKNOWN:
            text += Text(f", {event.role}")
    if event.reason:
        text += Text(f" ({event.reason})", style=style)
    return text


def _daemon(event: DaemonEvent) -> Text:
    if event.state == "ready":
        model = event.model.partition("@")[0]
        provider = event.provider.removesuffix("ExecutionProvider")
        return Text(f"ready: {model} on {provider}, speech by {event.vad}")
    return Text(f"{event.state}, up {event.uptime_s:.0f} s, {event.streams} streams", style="dim")
