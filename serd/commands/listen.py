"""``serd listen``: the events of a daemon."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.text import Text

from serd.client import Missed, Restarted, Subscriber
from serd.commands.common import output
from serd.commands.link import link, link_options
from serd.commands.render import HEADING, line
from serd.commands.topics import topics_option
from serd.protocol.events import encode


@click.command("listen", short_help="Show the events of a daemon.")
@click.argument("endpoint", required=False, default="tcp://127.0.0.1:5556")
@topics_option
@click.option("--json", "as_json", is_flag=True, help="One event a line (JSON).")
@click.option(
    "--replay",
    "replay",
    metavar="ENDPOINT",
    help="The daemon's replay socket: begin with the newest events of the open streams,"
    " and fetch what was missed.",
)
@link_options
@click.option("--count", metavar="N", type=click.IntRange(1), help="End after N events.")
def command(
    endpoint: str,
    topics: Sequence[str],
    as_json: bool,
    replay: str | None,
    key_path: Path | None,
    peer_key: str | None,
    count: int | None,
) -> None:
    """Show what a daemon publishes, as it comes. ENDPOINT is tcp://127.0.0.1:5556 by default.

    The types of events are stream, speech, emotion, utterance, gap and daemon. With --json nothing
    but events goes to standard output; that events were missed is told on standard error.

    \b
    Examples:
      serd listen
      serd listen tcp://10.0.0.5:5556 --topic emotion. --topic utterance.
      serd listen tcp://10.0.0.5:5556 --key me.secret --peer-key KEY
      serd listen --json --topic utterance. | jq -r '[.stream, .label] | @tsv'
    """
    notes, events = output(stderr=True), output()
    if notes.is_terminal:
        notes.print(f"listening to {endpoint}, Ctrl-C ends", style="dim")
    if not as_json:
        events.print(HEADING)
    seen = 0
    with Subscriber(
        endpoint,
        topics or ("",),
        replay=replay,
        last_values=replay is not None,
        curve=link(key_path, peer_key),
    ) as items:
        for item in items:
            if isinstance(item, Missed | Restarted):
                (notes if as_json else events).print(_notice(item), style="yellow")
                continue
            if as_json:
                sys.stdout.buffer.write(encode(item) + b"\n")
                sys.stdout.buffer.flush()
            else:
                events.print(line(item))
            seen += 1
            if seen == count:
                break


def _notice(item: Missed | Restarted) -> Text:
    if isinstance(item, Restarted):
        return Text("the daemon was started anew")
    many = "an unknown number of events" if item.events is None else f"{item.events} events"
    where = f" of {item.stream}" if item.stream is not None else ""
    return Text(f"missed {many}{where} between cursors {item.after} and {item.before}")
