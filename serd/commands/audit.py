"""``serd audit``: the audit log of a daemon."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from serd.commands.common import output


@click.group("audit", short_help="Check the audit log of a daemon.")
def command() -> None:
    """The append-only log of starts, models, subscribers and refusals (audit.path).

    \b
    Examples:
      serd audit verify /var/log/serd/audit.jsonl
    """


@command.command("verify")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--expect",
    "known",
    metavar="SHA256",
    multiple=True,
    help="A hash that was kept elsewhere (the log's audit.chain): must be that of a line.",
)
@click.pass_context
def verify(ctx: click.Context, files: Sequence[Path], known: Sequence[str]) -> None:
    """Check that no line of an audit log was changed, left out or put in.

    Give files that were set aside first, oldest first. A log that was cut off at its end, or
    written anew from its beginning, is whole in itself: it shows only with --expect. The exit
    status is 0 when the chain holds and 65 when it does not.

    \b
    Examples:
      serd audit verify /var/log/serd/audit.jsonl
      serd audit verify /var/log/serd/audit-*.jsonl /var/log/serd/audit.jsonl --expect 5f2a…
    """
    from serd.runtime.audit import FIRST
    from serd.runtime.chain import verify as follow

    verdict = follow(files, known)
    missing = sorted(set(known) - verdict.found)
    console = output()
    for place in verdict.breaks:
        console.print(place, style="red", markup=False)
    for place in verdict.torn:
        console.print(f"{place}, cut off when the machine stopped", style="yellow", markup=False)
    for hash_ in missing:
        console.print(f"{hash_}: is not the hash of any line", style="red", markup=False)
    good = not verdict.breaks and not missing
    console.print(
        f"{verdict.records} records, {'the chain holds' if good else 'CHANGED'}",
        style="green" if good else "red",
    )
    if verdict.first_previous != FIRST:
        console.print(f"  goes on from  {verdict.first_previous}")
    console.print(f"  last          {verdict.last}")
    ctx.exit(os.EX_OK if good else os.EX_DATAERR)
