"""``serd replay``: recordings through the whole pipeline."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

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
from serd.sources.recordings import Found, find_recordings

if TYPE_CHECKING:
    from serd.runtime import replay as runtime

_INTERRUPTED = 130
_HOUR_S = 3600


@click.command("replay", short_help="Analyse recordings.")
@click.argument("paths", metavar="[FILE|FOLDER]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One event a line on standard output (JSON).")
@click.option("--realtime", is_flag=True, help="At the speed of the recordings.")
@click.option(
    "--out",
    "out_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the events to a file as well, one a line (JSON).",
)
@click.option(
    "--list",
    "list_file",
    metavar="FILE",
    type=click.File(),
    help="Take more files and folders from a file, one a line; - is standard input.",
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1, 256),
    help="Processes that share the recordings; one a core by default, fewer for few recordings.",
)
@config_options
def command(
    paths: Sequence[Path],
    as_json: bool,
    realtime: bool,
    out_path: Path | None,
    list_file: TextIO | None,
    jobs: int | None,
    config_path: Path | None,
    overrides: Sequence[str],
) -> None:
    """Analyse recordings: WAV, FLAC, Ogg or MP3, as fast as the machine can.

    The stream id of a recording is its file name without the ending. In a folder, which is
    searched with all that is below it, ids are paths relative to the folder: day/call.wav is
    day/call. Of several channels each is a stream of its own, ID/0, ID/1 and so on. Recordings
    are analysed side by side: the events of a stream come in their order, those of different
    streams mixed. They are the events that the daemon publishes for the same audio; sources and
    endpoints of the configuration are not used. With --json nothing but events goes to standard
    output.

    A recording that cannot be read is told on standard error and does not stop the others; the
    exit status is then 66.

    \b
    Examples:
      serd replay talk.wav
      serd replay archive/ --out events.jsonl
      find calls -mtime -1 -name '*.wav' | serd replay --list - --json > events.jsonl
      serd replay talk.wav --json | jq -r 'select(.type == "utterance") | .label'
      serd replay talk.wav --set segment.hop_s=0.5 --set segment.window_s=2.0
    """
    from serd.runtime import logs, replay

    config = load(config_path, overrides)
    logs.configure("warning" if config.logging.level == "info" else config.logging.level)
    rows = [] if list_file is None else list_file.read().splitlines()
    listed = [Path(row) for row in rows if row]
    if not paths and not listed:
        raise click.UsageError("Missing argument '[FILE|FOLDER]...': what is to be analysed?")
    found = find_recordings([*paths, *listed])
    with ended_by_closed_pipe(), ExitStack() as stack:
        files: list[BinaryIO] = [sys.stdout.buffer] if as_json else []
        if out_path is not None:
            files.append(stack.enter_context(_create(out_path)))
        events, bar, notes = _consoles(as_json)
        writer = _Writer(files, None if as_json else events)
        if not bar.disable:
            # Old releases of rich end one that is disabled with an empty line all the same.
            stack.enter_context(bar)
        shown = _Shown(bar, notes, found, writer)
        for problem in found.problems:
            shown.problem(problem)
        summary = replay.replay(
            found.recordings,
            config,
            writer.write,
            realtime=realtime,
            jobs=jobs,
            on_progress=shown.progress,
            on_problem=shown.problem,
        )
        sys.stdout.flush()
    _conclude(output(stderr=True), summary, found)


def _consoles(as_json: bool) -> tuple[Output, Progress, Output]:
    """Where lines for people go, a progress bar out of their way, and where problems are told."""
    events, errors = output(), output(stderr=True)
    # On one terminal all have to be drawn by the same console.
    console = events if events.is_terminal and not as_json else errors
    bar = Progress(
        TextColumn("{task.fields[done]} of {task.fields[recordings]}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} % {task.fields[speed]:.0f} × real time"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or (as_json and events.is_terminal),
    )
    return events, bar, console if errors.is_terminal else errors


def _create(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise InputError("output_unwritable", f"{path}: {error.strerror or error}") from error


class _Writer:
    """Writes every event to any number of files and, for people, to a console."""

    def __init__(self, files: Sequence[BinaryIO], console: Output | None) -> None:
        self._files = files
        self._console = console
        self._jsonl = JsonlWriter(_Tee(files), Stamper(new_run_id(), SystemClock()))
        # Not before there is something under it: a recording may turn out to be unreadable.
        self._headed = False

    def write(self, event: Event) -> None:
        self._jsonl.write(event)
        if self._console is not None:
            if not self._headed:
                self._console.print(HEADING)
                self._headed = True
            self._console.print(line(event))

    def flush(self) -> None:
        """Ten times a second and not at every event, which would cost more than to write it."""
        for file in self._files:
            file.flush()


class _Tee:
    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self._files = files

    def write(self, content: bytes) -> None:
        for file in self._files:
            file.write(content)


class _Shown:
    """What the user sees of a replay while it runs."""

    def __init__(self, bar: Progress, notes: Output, found: Found, writer: _Writer) -> None:
        self._bar = bar
        self._notes = notes
        self._writer = writer
        self._began = time.monotonic()
        self._task = bar.add_task(
            "",
            total=sum(recording.size for recording in found.recordings),
            done=0,
            recordings=len(found.recordings),
            speed=0.0,
        )

    def progress(self, progress: runtime.Progress) -> None:
        self._writer.flush()
        speed = progress.audio_s / max(time.monotonic() - self._began, 1e-3)
        self._bar.update(self._task, completed=progress.size, done=progress.recordings, speed=speed)

    def problem(self, problem: str) -> None:
        self._notes.print(f"serd: {problem}", style="red", markup=False)


def _conclude(console: Output, summary: runtime.Summary, found: Found) -> None:
    """Sum up, and leave with a status that tells of interruption and failures."""
    several = len(found.recordings) > 1
    speed = summary.audio_s / summary.wall_s if summary.wall_s > 0 else 0.0
    hours = f" ({summary.audio_s / _HOUR_S:.1f} hours)" if summary.audio_s >= _HOUR_S else ""
    done = f"{summary.recordings} of {len(found.recordings)} recordings, " if several else ""
    # Whoever interrupts a single recording knows what was done.
    if several or not summary.interrupted:
        console.print(
            f"{done}{summary.audio_s:.1f} s{hours} of audio in {summary.wall_s:.1f} s"
            f" ({speed:.0f} times real time), {summary.events} events"
        )
    if found.passed_over:
        console.print(f"files passed over that are no recordings: {found.passed_over}")
    failed = summary.failed + len(found.problems)
    if failed:
        console.print(f"could not be read: {failed}")
    if summary.interrupted:
        raise click.exceptions.Exit(_INTERRUPTED)
    if failed:
        raise click.exceptions.Exit(os.EX_NOINPUT)
