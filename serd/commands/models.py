"""``serd models``: the shipped models and how well they do."""

from __future__ import annotations

import json

import click
from rich.table import Table

from serd.commands.common import output
from serd.errors import ModelError
from serd.inference.manifest import EmotionManifest, Manifest, model_file, shipped_models


@click.command("models", short_help="List the shipped models and their figures.")
@click.option("--json", "as_json", is_flag=True, help="The manifests, as one JSON array.")
def command(as_json: bool) -> None:
    """List the models that come with serd: labels, licence, and figures on held-out speakers.

    UAR is the unweighted average recall: the mean over the labels of the share of recordings that
    were recognised. Always guessing one of eight labels gives 0.125. The model card beside each
    model file says how the figures came about.

    \b
    Examples:
      serd models
      serd models --json | jq '.[].metrics'
    """
    manifests = shipped_models()
    if as_json:
        click.echo(json.dumps([manifest.model_dump(mode="json") for manifest in manifests]))
        return
    console = output()
    for manifest in manifests:
        console.print(f"{manifest.identity}", style="bold")
        console.print(f"  file     {_file(manifest)}")
        console.print(f"  licence  {manifest.licence}")
        if isinstance(manifest, EmotionManifest):
            console.print(f"  labels   {', '.join(manifest.labels)}")
            console.print(_figures(manifest))
        else:
            rates = " and ".join(str(rate.sample_rate_hz) for rate in manifest.rates)
            console.print(f"  hears    {rates} Hz, {manifest.frame_ms} ms at a time")
        console.print()


def _file(manifest: Manifest) -> str:
    try:
        return str(model_file(manifest))
    except ModelError as error:
        return f"missing: {error.message}"


def _figures(manifest: EmotionManifest) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("corpus", "protocol", "condition"):
        table.add_column(name, no_wrap=True)
    for name in ("UAR", "accuracy", "recordings"):
        table.add_column(name, justify="right")
    for metric in manifest.metrics:
        table.add_row(
            metric.corpus,
            metric.protocol,
            metric.condition,
            f"{metric.uar:.3f}",
            f"{metric.accuracy:.3f}",
            str(metric.count),
        )
    return table
