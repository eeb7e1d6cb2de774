"""`serd-trainer encoder`: the compact encoder."""

from __future__ import annotations

from pathlib import Path

import click

from trainer.commands.common import clear_errors, one_network, places


@click.group()
def encoder() -> None:
    """Train the compact encoder that a model can be built on."""


@encoder.command()
@one_network
@places
@clear_errors
def train(recipe: Path | None, out: Path, threads: int, data: Path, cache: Path) -> None:
    """Let the teacher hear the corpora and train on what it says; goes on after a stop."""
    import torch

    from trainer.compact.settings import SHIPPED_RECIPE, load_encoder_recipe
    from trainer.compact.training import train_encoder
    from trainer.prepare import Places

    torch.set_num_threads(threads)
    settings = load_encoder_recipe(recipe or SHIPPED_RECIPE)
    path = train_encoder(
        settings, Places(data, cache), out, threads, progress=True, tell=click.echo
    )
    click.echo(f"{path}")
