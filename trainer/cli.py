"""`serd-trainer`: corpora, check, train, evaluate, export."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from trainer.errors import TrainerError

EXIT_DATA = 65
_FOLDER = click.Path(file_okay=False, path_type=Path)


class _Failure(click.ClickException):
    exit_code = EXIT_DATA


def _clear_errors(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except TrainerError as error:
            raise _Failure(str(error)) from None
        except ModuleNotFoundError as error:
            raise _Failure(f"{error.name} is missing: pip install 'serd[train]'") from None

    return run


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "serd-trainer"


def _places(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option(
        "--data",
        type=_FOLDER,
        default=Path("../shared"),
        envvar="SERD_SHARED",
        show_default=True,
        show_envvar=True,
        help="Folder that holds corpora/ and noise/.",
    )(command)
    return click.option(
        "--cache",
        type=_FOLDER,
        default=_default_cache,
        help="Folder for decoded and degraded audio; may be deleted at any time.",
    )(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="serd", prog_name="serd-trainer")
def main() -> None:
    """Train, measure and export the models that serd ships.

    A run goes: `train RECIPE`, `evaluate RUN`, and, once every choice is made,
    `evaluate RUN --test` and `export RUN`.
    """


@main.command()
@click.option(
    "--data",
    type=_FOLDER,
    default=Path("../shared"),
    envvar="SERD_SHARED",
    show_default=True,
    show_envvar=True,
    help="Folder that holds corpora/.",
)
@_clear_errors
def corpora(data: Path) -> None:
    """List the corpora: what is there, and where the others come from."""
    from trainer.corpora import REGISTRY

    for corpus in REGISTRY.values():
        click.secho(f"{corpus.name}: {corpus.title}", bold=True)
        click.echo(f"  language {corpus.language}; licence: {corpus.licence}; {corpus.source}")
        folder = data / "corpora" / corpus.name
        scan = corpus.scan(folder) if folder.is_dir() else None
        if scan is None or not scan.utterances:
            click.echo(f"  not here: download it from the source and unpack it into {folder}")
            continue
        speakers = {u.speaker for u in scan.utterances}
        click.echo(f"  {len(scan.utterances)} utterances of {len(speakers)} speakers in {folder}")
        labels = Counter(u.label for u in scan.utterances)
        click.echo("  " + ", ".join(f"{label} {n}" for label, n in sorted(labels.items())))
        for reason, count in Counter(i.reason for i in scan.ignored).items():
            click.echo(f"  {count} left out: {reason}")


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--corpus", help="The corpus's name; default: the folder's own.")
@_clear_errors
def check(folder: Path, corpus: str | None) -> None:
    """Read every file of a corpus in FOLDER and say what is wrong.

    Exits with 65 if a file is unreadable, silent, clipped or there twice.
    """
    from trainer.check import check_folder
    from trainer.corpora import get

    found = check_folder(get(corpus or folder.resolve().name), folder)
    for path, fault in found.faults:
        click.echo(f"{path}: {fault}")
    for path, reason in found.ignored:
        click.echo(f"{path}: left out, {reason}")
    click.echo(
        f"{found.utterances} utterances of {found.speakers} speakers, "
        f"{found.seconds / 3600:.2f} h; {len(found.faults)} faults, {len(found.ignored)} left out"
    )
    if found.faults:
        raise SystemExit(EXIT_DATA)


@main.command()
@click.argument("recipe")
@click.option("--out", type=_FOLDER, help="Folder of the run; default: runs/NAME.")
@click.option("--resume", is_flag=True, help="Go on after the last whole epoch of that folder.")
@click.option("--fresh", is_flag=True, help="Throw away a run that is already there.")
@click.option("--processes", default=1, show_default=True, help="Processes that degrade audio.")
@_places
@_clear_errors
def train(
    recipe: str,
    out: Path | None,
    resume: bool,
    fresh: bool,
    processes: int,
    data: Path,
    cache: Path,
) -> None:
    """Train by RECIPE, the name of one that comes with the trainer or a TOML file."""
    from trainer.prepare import Places, prepare
    from trainer.recipe import load_recipe
    from trainer.train import Run

    loaded = load_recipe(recipe)
    folder = out or Path("runs") / loaded.name
    last = folder / "last.pt"
    if fresh and folder.is_dir():
        for name in ("last.pt", "best.pt", "log.csv", "report.json"):
            (folder / name).unlink(missing_ok=True)
    if last.is_file() and not resume:
        raise TrainerError(f"{folder} holds a run already: use --resume, --fresh or --out.")
    if resume and not last.is_file():
        raise TrainerError(f"{folder} holds no run to resume: {last} does not exist.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainerError(f"{folder} cannot be made: {error.strerror}.") from None
    run = Run(loaded, prepare(loaded, Places(data, cache), processes), folder)
    if resume:
        run.resume()
    run.train()
    click.echo(f"Best validation UAR {run.best_uar:.3f}; the run is in {folder}.")


@main.command()
@click.argument("run", type=_FOLDER)
@click.option(
    "--test",
    "with_test",
    is_flag=True,
    help="Also the test speakers. Once, when every choice is made.",
)
@_places
@_clear_errors
def evaluate(run: Path, with_test: bool, data: Path, cache: Path) -> None:
    """Calibrate a RUN's best model, and measure it clean and over the telephone."""
    from trainer.evaluate import torch_predictor
    from trainer.prepare import Places
    from trainer.report import format_report, make_report, save_report
    from trainer.train import load_trained

    recipe, model, epoch = load_trained(run)
    report = make_report(torch_predictor(model), recipe, epoch, Places(data, cache), with_test)
    save_report(report, run)
    click.echo(format_report(report))


@main.command()
@click.argument("run", type=_FOLDER)
@click.option("--out", type=_FOLDER, help="Folder for the files; default: RUN/export.")
@click.option("--version", default=1, show_default=True, help="Version of the model.")
@click.option("--note", default="", help="A paragraph for the model card.")
@_places
@_clear_errors
def export(run: Path, out: Path | None, version: int, note: str, data: Path, cache: Path) -> None:
    """Export an evaluated RUN: ONNX file, manifest, model card."""
    from trainer.audio import load_clips
    from trainer.evaluate import cut_segments
    from trainer.export import export as write
    from trainer.prepare import Places, load_split
    from trainer.report import load_report
    from trainer.train import load_trained

    recipe, model, epoch = load_trained(run)
    report = load_report(run)
    if report.epoch != epoch:
        raise TrainerError(
            f"{run / 'report.json'} is of epoch {report.epoch}, the best model of epoch {epoch}: "
            "evaluate the run again."
        )
    places = Places(data, cache)
    split = load_split(recipe, places)
    held = load_clips(split.validation, places.cache)
    step = max(1, len(held) // 48)
    segments = cut_segments(held, range(0, len(held), step), "clean")
    speakers = {str(part): ids for part, ids in split.speakers().items()}
    written = write(model, recipe, report, segments, speakers, out or run / "export", version, note)
    size = written.onnx.stat().st_size / 1e6
    click.echo(f"{written.onnx} ({size:.2f} MB), {written.manifest.name}, {written.card.name}")
    click.echo(f"ONNX and PyTorch differ by at most {written.parity:.2g} in the logits.")
