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
from serd.runtime.audit import audit_path
from serd.runtime.checks import Finding, Level
from serd.runtime.journalling import journal_path

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
    # Not run by the service manager, but the folders that it would name can be looked at.
    places = {"STATE_DIRECTORY": "/var/lib/serd", "LOGS_DIRECTORY": "/var/log/serd"}
    environ = {
        name: os.environ.get(name) or usual
        for name, usual in places.items()
        if name in os.environ or Path(usual).is_dir()
    }
    journal = journal_path(config.journal.path, environ)
    audit = audit_path(config.audit.path, environ)
    for what, path, max_mib in (
        ("journal", journal, config.journal.max_mib),
        ("audit log", audit, config.audit.max_mib),
    ):
        if path is None:
            yield checks.ok(what, "none on disk")
        else:
            key = "journal.path" if what == "journal" else "audit.path"
            yield from checks.disk(what, key, path, max_mib)
