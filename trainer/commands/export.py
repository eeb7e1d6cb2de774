"""`serd-trainer export`."""

from __future__ import annotations

from pathlib import Path

import click

from trainer.commands.common import FOLDER, cache_option, clear_errors


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder for the files; default: RUN/export.")
@click.option("--name", default="", help="Name of the model; default: the recipe's.")
@click.option("--version", default=1, show_default=True, help="Version of the model.")
@click.option("--note", default="", help="A paragraph for the model card.")
@click.option("--int8", is_flag=True, help="Also in eight bits, where that is worth having.")
@click.option("--fp16", is_flag=True, help="Also in half precision, for a GPU.")
@cache_option
@clear_errors
def export(
    run: Path,
    out: Path | None,
    name: str,
    version: int,
    note: str,
    int8: bool,
    fp16: bool,
    cache: Path,
) -> None:
    """Export a model: ONNX file, manifest, model card.

    RUN is the folder of one fold, or that of an experiment: then it is the model that everybody
    trained (a protocol of kind "all"), with the figures of the other protocols.
    """
    from trainer.export import export as write
    from trainer.export import hear
    from trainer.origin import read_origin

    origin = read_origin(run)
    segments = hear(origin, cache)
    written = write(origin, segments, out or run / "export", name, version, note, int8, fp16)
    size = written.onnx.stat().st_size / 1e6
    click.echo(f"{written.onnx} ({size:.2f} MB), {written.manifest.name}, {written.card.name}")
    if written.parity is not None:
        click.echo(f"ONNX and PyTorch differ by at most {written.parity:.2g} in the logits.")
    for variant in written.variants:
        click.echo(variant.told)
