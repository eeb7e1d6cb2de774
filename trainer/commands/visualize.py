"""`serd-trainer visualize`."""

from __future__ import annotations

from pathlib import Path

import click

from trainer.commands.common import FOLDER, clear_errors, places


@click.command()
@click.argument("run", type=FOLDER, required=False)
@click.option(
    "--corpus",
    "corpora",
    multiple=True,
    metavar="NAME|FOLDER",
    help="Draw the page of a corpus instead, without a model; may be given several times.",
)
@click.option(
    "--out",
    type=FOLDER,
    help="Folder for the pages of corpora; default: runs/corpora, a folder for each.",
)
@places
@clear_errors
def visualize(
    run: Path | None, corpora: tuple[str, ...], out: Path | None, data: Path, cache: Path
) -> None:
    """Draw the page of an experiment, or of a corpus: HTML, and the figures as PNG.

    RUN is an experiment's folder, as `train` makes it: its report.html is made again from what
    lies there, also while it is still being trained; no model is run. Examples and features come
    from the corpora under --data.
    """
    from trainer.html import refresh_figures, write_corpus, write_report
    from trainer.prepare import Places

    if (run is None) == (not corpora):
        raise click.UsageError("Name either an experiment's folder or --corpus.")
    at = Places(data, cache)
    if run is not None:
        if out is not None:
            raise click.UsageError(
                "--out is for --corpus: an experiment's page lies in its folder."
            )
        trouble = refresh_figures(run) if run.is_dir() else ""
        if trouble:
            click.echo(trouble, err=True)
        click.echo(write_report(run, at, progress=True))
        return
    for corpus in corpora:
        folder = (out or Path("runs") / "corpora") / Path(corpus).resolve().name
        click.echo(write_corpus(corpus, folder, at, progress=True))
