"""``serd devices``: the sound devices that can be recorded from."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.table import Table

from serd.commands.common import output


@click.command("devices", short_help="List the sound devices.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def command(as_json: bool) -> None:
    """List the sound devices that can be recorded from.

    A microphone source names its device by the index or by a part of the name that stands here.

    \b
    Examples:
      serd devices
      serd run --set 'sources=[{type="microphone", device=3, channels=[1]}]'
    """
    from serd.sources.microphone import list_devices

    devices = list_devices()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(device) for device in devices]))
        return
    console = output()
    if not devices:
        console.print("No device can be recorded from.", style="yellow")
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("index", "channels", "default rate"):
        table.add_column(name, justify="right")
    table.add_column("name")
    for device in devices:
        table.add_row(
            str(device.index),
            str(device.input_channels),
            f"{device.default_sample_rate_hz} Hz",
            device.label + (" (default)" if device.is_default else ""),
        )
    console.print(table)
