"""``serd check-config``: is this configuration in order?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from serd.commands.common import output
from serd.config.loading import defaults_text, load


@click.command("check-config", short_help="Check a configuration file.")
@click.argument("path", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="As for serd run.")
@click.option("--defaults", is_flag=True, help="Print every key with its default and its meaning.")
@click.pass_context
def command(
    ctx: click.Context, path: Path | None, overrides: Sequence[str], defaults: bool
) -> None:
    """Check a configuration file and tell everything that is wrong with it.

    Nothing is started. The exit status is 0 when the file is in order and 78 when it is not.

    \b
    Examples:
      serd check-config serd.toml
      serd check-config --defaults > serd.toml
    """
    if defaults:
        click.echo(defaults_text(), nl=False)
        return
    if path is None:
        click.echo(ctx.get_help())
        ctx.exit(os.EX_USAGE)
    config = load(path, overrides)
    kinds = ", ".join(f"{source.name} ({source.type})" for source in config.sources)
    console = output()
    console.print(f"{path}: in order", style="green")
    console.print(f"  sources   {kinds or 'none'}")
    console.print(f"  events    {', '.join(config.publish.bind)}")
    console.print(f"  model     {config.inference.model} on {config.inference.device}")
