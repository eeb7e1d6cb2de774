"""``serd events``: the events of a journal."""

from __future__ import annotations

import csv
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.text import Text

from serd.commands.common import output
from serd.commands.render import HEADING, line
from serd.commands.topics import topics_option
from serd.errors import InputError, MessageError
from serd.protocol.events import decode
from serd.protocol.replay import StoredEvent
from serd.runtime.journalling import FILE_NAME, journal_path
from serd.sinks.journal.faults import describe
from serd.sinks.journal.reader import Reader
from serd.sinks.journal.store import ForeignFileError

_SYSTEM_PATH: Final = Path("/var/lib/serd") / FILE_NAME
_FOLLOW_S: Final = 0.5
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_COLUMNS: Final = (
    "cursor",
    "emitted_at",
    "type",
    "stream",
    "seq",
    "call_id",
    "role",
    "state",
    "reason",
    "utterance",
    "start_s",
    "end_s",
    "label",
    "confidence",
    "abstained",
    "model",
    "id",
)

Show = Callable[[StoredEvent], None]


def _moment(_ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """A point in time: ``2h`` ago, or RFC 3339; local time where no zone is given."""
    if value is None:
        return None
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value)
    if ago:
        return datetime.now(UTC) - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither like 2h, 30m or 7d nor like 2026-01-31T09:30", param=param
        ) from None


@click.command("events", short_help="Show the events of a journal.")
@click.option(
    "--journal",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The journal; by default that of the service, $STATE_DIRECTORY/events.sqlite or"
    f" {_SYSTEM_PATH}.",
)
@click.option(
    "--since", metavar="TIME", callback=_moment, help="From then on: 2h ago, or 2026-01-31T09:30."
)
@click.option("--until", metavar="TIME", callback=_moment, help="Up to then.")
@click.option("--after", metavar="ID", help="Only events after this one, by its id or cursor.")
@topics_option
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes; Ctrl-C ends.")
@click.option("--json", "as_json", is_flag=True, help="One event a line (JSON).")
@click.option("--csv", "as_csv", is_flag=True, help="A table of the commonest fields (CSV).")
@click.option("--count", metavar="N", type=click.IntRange(1), help="End after N events.")
def command(
    path: Path | None,
    since: datetime | None,
    until: datetime | None,
    after: str | None,
    topics: Sequence[str],
    follow: bool,
    as_json: bool,
    as_csv: bool,
    count: int | None,
) -> None:
    """Show events from a daemon's journal, oldest first. The daemon may run or not.

    The times of --since and --until are those of publishing. With --json or --csv nothing but
    events goes to standard output; that some are no longer there is told on standard error.

    \b
    Examples:
      serd events --since 1h
      serd events --since 2026-01-31 --until 2026-02-01 --topic utterance. --csv
      serd events --follow --json --topic emotion. | jq -r '[.stream, .label] | @tsv'
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if follow and until is not None:
        raise click.UsageError("--follow and --until exclude each other")
    path = path or journal_path("auto") or _SYSTEM_PATH
    notes = output(stderr=True)
    show = _json_shower() if as_json else _csv_shower() if as_csv else _line_shower()
    seen = 0
    try:
        for found in _read(path, since, until, _cursor(after), topics or ("",), follow):
            if isinstance(found, StoredEvent):
                show(found)
                seen += 1
                if seen == count:
                    break
            else:
                first, last = found
                notes.print(
                    f"{last - first + 1} events from cursor {first} to {last} were published and"
                    " are not in the journal",
                    style="yellow",
                )
    except (sqlite3.Error, ForeignFileError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise _unusable(path, error) from None


def _read(
    path: Path,
    since: datetime | None,
    until: datetime | None,
    after: int,
    topics: Sequence[str],
    follow: bool,
) -> Iterator[StoredEvent | tuple[int, int]]:
    """Events, and the first and last cursors of those that are not there, in their order."""
    if not path.exists():
        raise FileNotFoundError(2, "no such file")
    bounds: dict[str, int] = {}
    with closing(Reader(path)) as reader:
        if since is not None:
            after = max(after, reader.cursor_at(_ms(since)))
        elif not after:
            # What has outlived its time is not missed by anybody who asks for everything.
            after = max(0, reader.extent().oldest - 1)
        if until is not None:
            bounds["before"] = reader.cursor_at(_ms(until)) + 1
    while True:
        # Opened anew every time: a file that was set aside must not be followed.
        with closing(Reader(path)) as reader:
            more = True
            while more:
                page = reader.page(after, topics, **bounds)
                found: list[StoredEvent | tuple[int, int]] = [*page.events, *page.gaps]
                yield from sorted(found, key=lambda one: one[0])
                after, more = page.reached, page.more
        sys.stdout.flush()
        if not follow:
            return
        time.sleep(_FOLLOW_S)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _cursor(after: str | None) -> int:
    if after is None:
        return 0
    digits = after.rpartition("-")[2]
    if not (digits.isascii() and digits.isdigit()):
        raise click.BadParameter(
            f"{after!r} is neither an event's id nor a cursor", param_hint="--after"
        )
    return int(digits)


def _unusable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(
            "no_journal",
            f"there is no journal {path}: name one with --journal; a daemon has one if [journal]"
            " path says so or systemd gives it a state directory",
        )
    _, what, _ = describe(error)
    return InputError("journal_unreadable", f"cannot read the journal {path}: {what}")


def _json_shower() -> Show:
    def show(stored: StoredEvent) -> None:
        sys.stdout.buffer.write(stored.payload + b"\n")

    return show


def _csv_shower() -> Show:
    table = csv.writer(sys.stdout)
    table.writerow(_COLUMNS)

    def show(stored: StoredEvent) -> None:
        event = msgspec.json.decode(stored.payload, type=dict[str, Any])
        table.writerow([event.get(column) for column in _COLUMNS])

    return show


def _line_shower() -> Show:
    console = output()
    console.print(Text(f"{'published':<19} ", style="dim") + HEADING)

    def show(stored: StoredEvent) -> None:
        try:
            event = decode(stored.payload)
        except MessageError:
            # Of a later version, whose journal this one can read.
            console.print(f"{stored.cursor} {stored.topic.decode()}", style="dim")
            return
        published = event.emitted_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        console.print(Text(f"{published} ", style="dim") + line(event))

    return show
