"""``serd replay``: recordings through the whole pipeline."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from serd.clock import SystemClock
from serd.commands.common import Output, config_options, ended_by_closed_pipe, output
from serd.commands.render import HEADING, line
from serd.config.loading import load
from serd.errors import InputError
from serd.protocol.events import Event
from serd.sinks.jsonl import JsonlWriter
from serd.sinks.stamper import Stamper, new_run_id

if TYPE_CHECKING:
    from serd.runtime.replay import Summary


@click.command("replay", short_help="Analyse recordings.")
@click.argument(
    "paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--json", "as_json", is_flag=True, help="One event a line on standard output (JSON).")
@click.option("--realtime", is_flag=True, help="At the speed of the recordings.")
@click.option(
    "--out",
    "out_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the events to a file as well, one a line (JSON).",
)
@config_options
def command(
    paths: Sequence[Path],
    as_json: bool,
    realtime: bool,
    out_path: Path | None,
    config_path: Path | None,
    overrides: Sequence[str],
) -> None:
    """Analyse recordings: WAV, FLAC, Ogg or MP3, as fast as the machine can.

    The stream id of a recording is its file name without the ending; of several channels each is
    a stream of its own, ID/0, ID/1 and so on. The events are those that the daemon publishes for
    the same audio; sources and endpoints of the configuration are not used. With --json nothing
    but events goes to standard output.

    \b
    Examples:
      serd replay talk.wav
      serd replay calls/*.flac --out events.jsonl
      serd replay talk.wav --json | jq -r 'select(.type == "utterance") | .label'
      serd replay talk.wav --set segment.hop_s=0.5 --set segment.window_s=2.0
    """
    from serd.runtime import logs
    from serd.runtime.replay import replay

    config = load(config_path, overrides)
    logs.configure("warning" if config.logging.level == "info" else config.logging.level)
    events, progress = _consoles(as_json)
    with ended_by_closed_pipe(), ExitStack() as stack:
        files: list[BinaryIO] = [sys.stdout.buffer] if as_json else []
        if out_path is not None:
            files.append(stack.enter_context(_create(out_path)))
        bar = stack.enter_context(progress)
        task = bar.add_task("", total=None)
        on_event = _writer(files, None if as_json else events)
        summary = replay(
            paths,
            config,
            on_event,
            realtime,
            lambda done_s, total_s: bar.update(task, completed=done_s, total=total_s),
        )
        sys.stdout.flush()
    _conclude(output(stderr=True), summary)


def _consoles(as_json: bool) -> tuple[Output, Progress]:
    """Where lines for people go, and a progress bar that does not get into their way."""
    events = output()
    # On one terminal both have to be drawn by the same console.
    shared = events.is_terminal and not as_json
    console = events if shared else output(stderr=True)
    progress = Progress(
        TextColumn("{task.completed:.0f} s of audio"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or (as_json and events.is_terminal),
    )
    return events, progress


def _create(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise InputError("output_unwritable", f"{path}: {error.strerror or error}") from error


def _writer(files: Sequence[BinaryIO], console: Output | None) -> Callable[[Event], None]:
    writer = JsonlWriter(_Tee(files), Stamper(new_run_id(), SystemClock()))
    # Not before there is something under it: a recording may turn out to be unreadable.
    headed = False

    def write(event: Event) -> None:
        nonlocal headed
        writer.write(event)
        if console is not None:
            if not headed:
                console.print(HEADING)
                headed = True
            console.print(line(event))

    return write


class _Tee:
    """Writes the same lines to any number of files, at once."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self._files = files

    def write(self, content: bytes) -> None:
        for file in self._files:
            file.write(content)
            file.flush()


def _conclude(console: Output, summary: Summary) -> None:
    speed = summary.audio_s / summary.wall_s if summary.wall_s > 0 else 0.0
    console.print(
        f"{summary.audio_s:.1f} s of audio in {summary.wall_s:.1f} s"
        f" ({speed:.0f} times real time), {summary.events} events"
    )
