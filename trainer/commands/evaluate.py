"""`serd-trainer evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from trainer.commands.common import FOLDER, clear_errors, places


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--protocol", help="Show only this protocol.")
@click.option("--model", help="Show only this model.")
@click.option("--again", is_flag=True, help="Let the trained models hear their recordings anew.")
@places
@clear_errors
def evaluate(
    run: Path, protocol: str | None, model: str | None, again: bool, data: Path, cache: Path
) -> None:
    """Write and show the figures of an experiment's folder RUN.

    They are made of what the models said when they were trained: clean, over the telephone, and
    of whole files. Which protocol a figure is of, and whether it is speaker-dependent, stands
    above it.
    """
    from trainer.experiment import Choice, Experiment, load_resolved
    from trainer.prepare import Places
    from trainer.report import save_report
    from trainer.reporting.build import build_report
    from trainer.reporting.text import print_report

    if again:
        experiment = Experiment(load_resolved(run), run, Places(data, cache), tell=click.echo)
        experiment.hear_again(Choice(protocol, model))
    report = build_report(run)
    save_report(report, run)
    entries = [
        entry
        for entry in report.entries
        if protocol in (None, entry.protocol) and model in (None, entry.model)
    ]
    print_report(report.model_copy(update={"entries": entries}))
