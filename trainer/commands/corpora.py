"""`serd-trainer corpora`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from trainer.commands.common import clear_errors, data_option


@click.command()
@data_option
@clear_errors
def corpora(data: Path) -> None:
    """List the corpora: what is there, and where to get the others and put them."""
    from trainer.corpora import REGISTRY

    for corpus in REGISTRY.values():
        click.secho(f"{corpus.name}: {corpus.title}", bold=True)
        click.echo(f"  language {corpus.language}; licence: {corpus.licence}; {corpus.size}")
        folder = data / "corpora" / corpus.name
        scan = corpus.scan(folder) if folder.is_dir() else None
        if scan is None or not scan.utterances:
            click.echo("  not here; to be downloaded by hand:")
            click.echo(f"    from    {corpus.source}")
            click.echo(f"    unpack  {corpus.unpack}")
            click.echo(f"    into    {folder}, in any nesting")
            continue
        speakers = {u.speaker for u in scan.utterances}
        whole = corpus.inventory(folder, scan.utterances).total
        known = f" of {whole}" if whole is not None else ""
        click.echo(
            f"  {len(scan.utterances)}{known} utterances, {len(speakers)} speakers, in {folder}"
        )
        labels = Counter(u.label for u in scan.utterances)
        click.echo("  " + ", ".join(f"{label} {n}" for label, n in sorted(labels.items())))
        for reason, count in Counter(i.reason for i in scan.ignored).items():
            click.echo(f"  {count} left out: {reason}")
        click.echo(f"  from {corpus.source}")
