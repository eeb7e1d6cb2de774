"""`serd-trainer train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainer.commands.common import EXIT_DATA, FOLDER, clear_errors, places

if TYPE_CHECKING:
    from trainer.prepare import Places


@click.command()
@click.argument("recipe")
@click.option("--out", type=FOLDER, help="Folder of the experiment; default: runs/NAME.")
@click.option("--resume", is_flag=True, help="Go on with what that folder has not done yet.")
@click.option("--fresh", is_flag=True, help="Throw away the experiment that is already there.")
@click.option("--protocol", help="Only this protocol of the recipe.")
@click.option("--model", help="Only this model of the recipe.")
@click.option("--fold", help="Only this fold.")
@click.option(
    "--processes", default=1, show_default=True, help="Processes that decode and degrade audio."
)
@places
@clear_errors
def train(
    recipe: str,
    out: Path | None,
    resume: bool,
    fresh: bool,
    protocol: str | None,
    model: str | None,
    fold: str | None,
    processes: int,
    data: Path,
    cache: Path,
) -> None:
    """Train by RECIPE, the name of one that comes with the trainer or a TOML file.

    Every model of the recipe is trained on every fold of every protocol, and heard on its
    validation and test speakers. A fold that fails is recorded, the others go on; the exit code
    is then 65. On several devices: torchrun --nproc-per-node N -m trainer train RECIPE.
    """
    from trainer.distributed import join
    from trainer.experiment import Choice, Experiment
    from trainer.prepare import Places
    from trainer.recipe import load_recipes

    recipes = load_recipes(recipe)
    folder = out or Path("runs") / next(iter(recipes.values())).name
    with join() as world:
        experiment = Experiment(
            recipes, folder, Places(data, cache), processes, world, tell=click.echo
        )
        choice = Choice(protocol, model, fold)
        experiment.choose(choice)
        experiment.begin(resume, fresh)
        failed = experiment.run(choice)
        if world.leads:
            _finish(folder, Places(data, cache), experiment.record.count("done"), failed)
    if failed:
        raise SystemExit(EXIT_DATA)


def _finish(folder: Path, places: Places, done: int, failed: int) -> None:
    from trainer.html import write_report
    from trainer.predictions import CONDITIONS
    from trainer.report import save_report
    from trainer.reporting.build import build_report

    report = build_report(folder)
    save_report(report, folder)
    for entry in report.entries:
        rows = [row for condition in CONDITIONS if (row := entry.row(condition)) is not None]
        said = [f"{r.condition} {100 * r.uar.value:.1f}" for r in rows if r.uar.value is not None]
        if said:
            click.echo(f"{entry.title}: test UAR in %: {', '.join(said)}")
    trouble = f", {failed} failed" if failed else ""
    click.echo(f"{done} runs done{trouble}; all figures: serd-trainer evaluate {folder}")
    click.echo(f"The report to look at: {write_report(folder, places)}")
