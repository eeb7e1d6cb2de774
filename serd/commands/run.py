"""``serd run``: the daemon."""

from __future__ import annotations

import faulthandler
from collections.abc import Sequence
from pathlib import Path

import click

from serd.commands.common import config_options
from serd.config.loading import load
from serd.threads import leave_hung_behind


@click.command("run", short_help="Run the daemon until it is told to stop.")
@config_options
@click.pass_context
def command(ctx: click.Context, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    Without a configuration it takes audio on tcp://127.0.0.1:5550 (ZeroMQ PULL), publishes events
    on tcp://127.0.0.1:5556 and answers requests for past events on tcp://127.0.0.1:5557. Its log
    goes to standard error; the line "ready" names the model and the processor that runs it.
    When told to stop it finishes what is under way, within daemon.drain_timeout_s. SIGHUP makes it
    read its configuration anew: what cannot change under way is named in the log.

    \b
    Examples:
      serd run
      serd run --config serd.toml
      serd run --set inference.device=cuda --set sources.0.bind=tcp://127.0.0.1:6000
      serd run --set 'sources=[{type="microphone", device="USB Audio"}]'
    """
    from serd.runtime import logs
    from serd.runtime.daemon import Daemon

    config = load(config_path, overrides)
    logs.configure(config.logging.level, config.logging.format)
    # The service manager ends a daemon that is stuck with SIGABRT: the log then says in what.
    faulthandler.enable(2)
    status = Daemon(config, reread=lambda: load(config_path, overrides)).run()
    leave_hung_behind(status)
    ctx.exit(status)
