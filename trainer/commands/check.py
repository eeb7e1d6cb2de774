"""`serd-trainer check`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainer.commands.common import EXIT_DATA, clear_errors

if TYPE_CHECKING:
    from trainer.check import Findings


def _tell(found: Findings) -> None:
    for fault in found.faults:
        click.echo(f"{fault.path}: {fault.kind}: {fault.detail}")
    for path, reason in found.ignored:
        click.echo(f"{path}: left out: {reason}")
    for missing in found.missing:
        click.echo(f"missing: {missing}")
    if found.absent_speakers:
        click.echo(f"missing: all of speakers {', '.join(found.absent_speakers)}")
    speakers = f"{len(found.speakers)} speakers" if found.speakers_known else "speakers not known"
    whole = "" if found.complete is None else f" of {found.complete}"
    click.secho(
        f"{found.corpus}: {found.utterances}{whole} utterances, {speakers}, "
        f"{found.seconds / 3600:.2f} h",
        bold=True,
    )
    click.echo("  " + ", ".join(f"{label} {n}" for label, n in sorted(found.labels.items())))
    rates = ", ".join(f"{n} at {rate} Hz" for rate, n in found.sample_rates_hz.most_common())
    click.echo(f"  {rates or 'no file can be read'}")
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(f.kind for f in found.faults).items())
    click.echo(f"  {kinds or 'no fault'}; {len(found.ignored)} left out")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--corpus", help="The corpus's name; default: by the folder's or the files' names.")
@click.option(
    "--csv",
    "table",
    type=click.Path(path_type=Path),
    help="A table of files, below FOLDER, with columns path and label.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object a corpus.")
@clear_errors
def check(folder: Path, corpus: str | None, table: Path | None, as_json: bool) -> None:
    """Read every file in FOLDER and say what is wrong.

    FOLDER holds one corpus that the trainer knows, or several in folders of their names, or
    recordings of your own, listed in a table or in a directory for each label.

    Exits with 65 if a file is unreadable, empty, silent, clipped, too short or there twice.
    Files that are missing or of another sample rate than the others are named.
    """
    from trainer.check import check_folder, identify
    from trainer.corpora import REGISTRY, get
    from trainer.corpora.settings import CorpusSettings

    several = [folder / name for name in REGISTRY if (folder / name).is_dir()]
    found = []
    if corpus is not None:
        found.append(check_folder(folder, get(corpus)))
    elif table is not None:
        if table.is_file() and not (folder / table).is_file():
            table = table.resolve()
        settings = CorpusSettings(loader="folder", csv=table)
        found.append(check_folder(folder, None, settings))
    elif several:
        found.extend(check_folder(each, get(each.name)) for each in several)
    else:
        found.append(check_folder(folder, identify(folder)))
    if as_json:
        click.echo(json.dumps([one.as_json() for one in found], indent=2, ensure_ascii=False))
    else:
        for one in found:
            _tell(one)
    if not all(one.sound for one in found):
        raise SystemExit(EXIT_DATA)
