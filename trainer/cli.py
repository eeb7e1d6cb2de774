"""`serd-trainer`: one module of `trainer.commands` a command."""

from __future__ import annotations

import click

from trainer.commands.check import check
from trainer.commands.compare import compare
from trainer.commands.corpora import corpora
from trainer.commands.encoder import encoder
from trainer.commands.evaluate import evaluate
from trainer.commands.export import export
from trainer.commands.predict import predict
from trainer.commands.train import train
from trainer.commands.vad import vad
from trainer.commands.visualize import visualize


class _Commands(click.Group):
    """Lists commands in the order in which they are registered."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="serd", prog_name="serd-trainer")
def main() -> None:
    """Train, measure and export the models that serd ships.

    An experiment goes: `train RECIPE`, `evaluate RUN`, `visualize RUN`, and, once every choice is
    made, `export RUN`.
    """


for _command in (
    corpora,
    check,
    train,
    evaluate,
    visualize,
    compare,
    predict,
    export,
    vad,
    encoder,
):
    main.add_command(_command)
