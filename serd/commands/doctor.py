"""``serd doctor``: whether this machine is fit to run a configuration, and what to mend."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from serd.commands.common import config_options, output
from serd.config.loading import load
from serd.config.schema import Config
from serd.runtime import checks, checks_devices
from serd.runtime.checks import Finding, Level

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
_FAILED = 1


@click.command("doctor", short_help="Look for what keeps serd from running well.")
@config_options
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_context
def command(
    ctx: click.Context, config_path: Path | None, overrides: Sequence[str], as_json: bool
) -> None:
    """Look for what would keep serd from running well here, and say what to do about it.

    Nothing is changed or started. Run it as the user that serd runs as, or as root. The exit
    status is 0 when nothing failed (warnings are no failure), and 1 otherwise.

    \b
    Examples:
      serd doctor
      serd doctor --config /etc/serd/serd.toml
      serd doctor --set inference.device=cuda --json | jq '.[] | select(.level != "ok")'
    """
    config = load(config_path, overrides)
    findings = list(examine(config))
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings]))
    else:
        table = Table(box=None, padding=(0, 1), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for level, what, text, advice in findings:
            table.add_row(Text(level, _STYLES[level]), what, Text(text))
            if advice:
                table.add_row("", "", Text(f"→ {advice}", "dim"))
        output().print(table)
    worst = any(finding.level is Level.FAIL for finding in findings)
    ctx.exit(_FAILED if worst else os.EX_OK)


def examine(config: Config) -> Iterator[Finding]:
    """All that there is to say about running `config` here."""
    yield from checks_devices.runtime(config)
    yield from checks_devices.model(config)
    yield from checks_devices.detector(config)
    yield from checks_devices.sound(config)
    yield from checks.ports(checks.addresses(config))
    yield from checks.credentials(config)
    yield from _disks(config)
    yield from checks.limits(config)
    yield from checks.clock()
    yield from checks.unit()


def _disks(config: Config) -> Iterator[Finding]:
    state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    # Not run by the service manager, but the place that it would name can be looked at.
    folder = Path(state or "/var/lib/serd")
    for what, key, path, max_mib, name in (
        ("journal", "journal.path", config.journal.path, config.journal.max_mib, "events.sqlite"),
        ("audit log", "audit.path", config.audit.path, config.audit.max_mib, "audit.jsonl"),
    ):
        if path == "auto" and not folder.exists():
            yield checks.ok(what, "in memory alone: no state directory (see systemd/README.md)")
        elif path:
            place = folder / name if path == "auto" else Path(path)
            yield from checks.disk(what, key, place, max_mib)
