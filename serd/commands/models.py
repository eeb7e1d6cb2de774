"""``serd models``: the shipped models, how well they do, and which one a daemon uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from serd.commands.common import Output, output
from serd.errors import ModelError, SerdError
from serd.inference.manifest import EmotionManifest, Manifest, model_file, shipped_models
from serd.runtime.control import ask

_DEFAULT_CONTROL = Path("/run/serd/control.sock")
# Beyond inference.load_timeout_s, at whatever it is set, the daemon itself answers.
_LOAD_S = 3700.0


_control_option = click.option(
    "--control",
    "control",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The running daemon's control socket (daemon.control of its configuration);"
    f" default: {_DEFAULT_CONTROL}.",
)


@click.group(
    "models",
    short_help="List models and their figures, or change the daemon's.",
    invoke_without_command=True,
)
@click.option("--json", "as_json", is_flag=True, help="The manifests, as one JSON array.")
@_control_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, control: Path | None) -> None:
    """List the models that come with serd: labels, licence, and figures on held-out speakers.

    UAR is the unweighted average recall: the mean over the labels of the share of recordings that
    were recognised. Always guessing one of eight labels gives 0.125. The model card beside each
    model file says how the figures came about.

    Where a daemon runs on this machine and may be asked, what it uses comes first.

    \b
    Examples:
      serd models
      sudo serd models --control /run/serd/control.sock
      serd models --json | jq '.[].metrics'
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = control
        return
    manifests = shipped_models()
    if as_json:
        click.echo(json.dumps([manifest.model_dump(mode="json") for manifest in manifests]))
        return
    console = output()
    _print_running(console, control)
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


@command.command("use", short_help="Have a running daemon use another model.")
@click.argument("name", metavar="NAME", required=False)
@click.option(
    "--shadow", "shadow", is_flag=True, help="On trial, beside the model in use, which stays."
)
@click.option("--no-shadow", "no_shadow", is_flag=True, help="End the trial.")
@_control_option
@click.pass_context
def use(
    ctx: click.Context, name: str | None, shadow: bool, no_shadow: bool, control: Path | None
) -> None:
    """Have a running daemon score with another model, without a pause and without a loss.

    NAME is a model that `serd models` lists, or the path of a manifest that the daemon can read. A
    process of its own tries it first, then it is opened and warmed up beside the one in use; one
    that does not hold, crashes or hangs changes nothing, and the reason is told. The change lasts
    until the daemon ends: to keep it, set inference.model in its configuration as well.

    \b
    Examples:
      sudo serd models use /var/lib/serd/next-crnn.json
      sudo serd models use /var/lib/serd/next-crnn.json --shadow
      sudo serd models use --no-shadow
    """
    if (name is None) is not no_shadow or (shadow and no_shadow):
        raise click.UsageError("Name one model, or give --no-shadow alone.")
    path = control or ctx.obj or _DEFAULT_CONTROL
    if no_shadow:
        request: dict[str, Any] = {"command": "shadow", "model": None}
    else:
        assert name is not None
        request = {"command": "shadow" if shadow else "use", "model": _absolute(name)}
    answer = ask(path, request, _LOAD_S)
    if no_shadow:
        click.echo("no shadow model any more")
    elif shadow:
        click.echo(f"shadow model: {answer['shadow']}")
    else:
        click.echo(f"model in use: {answer['model']}")


def _absolute(name: str) -> str:
    # The daemon has another working directory.
    shipped = {manifest.name for manifest in shipped_models()}
    return name if name in shipped or not Path(name).exists() else str(Path(name).resolve())


def _print_running(console: Output, control: Path | None) -> None:
    try:
        running = ask(control or _DEFAULT_CONTROL, {"command": "models"})
    except SerdError:
        # Only whoever named a daemon wants to know that there is none.
        if control is not None:
            raise
        return
    console.print(f"in use     {running['model']['identity']} on {running['model']['provider']}")
    if running["shadow"] is not None:
        console.print(f"on trial   {running['shadow']['identity']}")
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
