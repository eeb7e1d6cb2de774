"""`serd-trainer vad`: the voice-activity model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainer.commands.common import FOLDER, clear_errors, one_network, places
from trainer.errors import TrainerError

if TYPE_CHECKING:
    from trainer.vad.scoring import Listener, Score
    from trainer.vad.settings import VadRecipe


@click.group()
def vad() -> None:
    """Train, measure and export the voice-activity model."""


@vad.command()
@one_network
@places
@clear_errors
def train(recipe: Path | None, out: Path, threads: int, data: Path, cache: Path) -> None:
    """Make the mixtures and train on them; goes on where an earlier call was stopped."""
    import torch

    from trainer.vad.bank import build_bank
    from trainer.vad.settings import SHIPPED_RECIPE, load_vad_recipe
    from trainer.vad.training import train as run

    torch.set_num_threads(threads)
    settings = load_vad_recipe(recipe or SHIPPED_RECIPE)
    bank = build_bank(settings, data, cache / "vad", progress=True)
    click.echo(f"{run(settings, bank, out, progress=True)}")


@vad.command()
@click.argument("run", type=FOLDER)
@click.option("--test", is_flag=True, help="Also the meetings, which nothing may be chosen on.")
@places
@clear_errors
def evaluate(run: Path, test: bool, data: Path, cache: Path) -> None:
    """Compare a trained RUN with silero on what neither was trained on."""
    from trainer.vad.training import load_network, torch_listener

    recipe, network = load_network(run / "best.pt")
    for line in _table(_scores(recipe, torch_listener(network), data, cache, test)):
        click.echo(line)


@vad.command()
@click.argument("run", type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder for the files; default: RUN/export.")
@click.option("--version", default=1, show_default=True, help="Version of the model.")
@click.option("--note", default="", help="A paragraph for the model card.")
@places
@clear_errors
def export(run: Path, out: Path | None, version: int, note: str, data: Path, cache: Path) -> None:
    """Export a trained RUN: ONNX file, manifest, model card with figures of the test set."""
    from trainer.vad.bank import build_bank, load_validation
    from trainer.vad.exporting import export as write
    from trainer.vad.training import load_network

    recipe, network = load_network(run / "best.pt")
    bank = build_bank(recipe, data, cache / "vad", progress=True)
    recordings = [(rate_hz, samples[:4]) for _, rate_hz, samples, _ in load_validation(bank)]
    written = write(
        network,
        recipe,
        recordings,
        lambda listen: _scores(recipe, listen, data, cache, test=True),
        out or run / "export",
        version,
        note,
    )
    size = written.onnx.stat().st_size / 1e6
    click.echo(f"{written.onnx} ({size:.2f} MB), {written.manifest.name}, {written.card.name}")
    click.echo(f"ONNX and PyTorch differ by at most {written.parity:.2g} in the probabilities.")


@vad.command()
@click.argument("model", default="serd-vad")
@clear_errors
def cost(model: str) -> None:
    """Microseconds a frame of MODEL (a shipped name or a manifest) and of silero, one core."""
    from trainer.vad.timing import compare

    for line in compare(model):
        click.echo(line)


def _scores(
    recipe: VadRecipe, listen: Listener, data: Path, cache: Path, test: bool
) -> list[Score]:
    from trainer.vad.bank import build_bank
    from trainer.vad.meetings import load_meetings
    from trainer.vad.mixture import load_sounds
    from trainer.vad.scoring import score_meetings, score_validation
    from trainer.vad.teacher import Teacher

    bank = build_bank(recipe, data, cache / "vad", progress=True)
    listeners = {
        recipe.name: listen,
        "silero": Teacher().recordings,
        "silero in serd": Teacher(resets=True).recordings,
    }
    scores = [
        score for name, heard in listeners.items() for score in score_validation(name, heard, bank)
    ]
    if test:
        meetings = load_meetings(data / "conversations")
        _, sounds = load_sounds(recipe.noise, data / "noise")
        for name, heard in listeners.items():
            scores += score_meetings(name, heard, meetings, sounds)
    return scores


def _table(scores: list[Score]) -> list[str]:
    if not scores:
        raise TrainerError("There is nothing to compare.")
    width = max(len(score.condition) for score in scores)
    return [
        f"{score.condition:{width}}  {score.detector:14}  AUC {score.auc:.4f}  "
        f"found {score.found:.3f}  mistaken {score.false:.3f}"
        for score in sorted(scores, key=lambda score: score.condition)
    ]
