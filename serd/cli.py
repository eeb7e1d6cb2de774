"""The command line: what every command has in common, and the way out of it.

Exit statuses follow sysexits.h: 0 success, 64 usage, 65 unusable data or model, 66 unreadable
input, 69 something needed is not there, 70 internal error, 71 a socket cannot be bound, 73 the
journal cannot be used, 74 input or output failed, 75 a measurement without a result, 78
configuration; besides, 1 for a bench that did not hold, 130 after Ctrl-C, 141 when the reader of
the output has gone.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import serd
from serd.commands import (
    audit,
    bench,
    check_config,
    demo,
    devices,
    doctor,
    events,
    keygen,
    listen,
    models,
    replay,
    run,
    send,
    status,
)
from serd.errors import SerdError

_INTERRUPTED = 128 + signal.SIGINT
_CLOSED_PIPE = 128 + signal.SIGPIPE


class _Commands(click.Group):
    """Lists commands in the order in which they are registered, and words their errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except BrokenPipeError:
            # What is still buffered would fail again when the interpreter flushes it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(_CLOSED_PIPE)
        except SerdError as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            click.secho(f"serd: {error.message}", err=True, fg="red")
            ctx.exit(error.exit_code)
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
                ctx.exit(os.EX_SOFTWARE)
            text = " ".join(str(error).split()) or "no further description"
            click.secho(f"serd: internal error: {type(error).__name__}: {text}", err=True, fg="red")
            click.echo("Run serd --debug … for the traceback, and please report it.", err=True)
            ctx.exit(os.EX_SOFTWARE)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="serd COMMAND --help explains a command and shows how it is used.",
)
@click.version_option(serd.__version__, prog_name="serd", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="SERD_DEBUG", help="Show the traceback of errors.")
def cli(debug: bool) -> None:
    """Listen to live speech and tell how it sounds.

    A daemon (serd run) takes audio from microphones and from ZeroMQ publishers, finds the speech
    in it, and publishes timestamped emotion events on a ZeroMQ socket. Begin with:

    \b
      serd demo                       a daemon at work on a recorded conversation
      serd replay talk.wav            the same on a recording of yours
      serd run                        the daemon; audio on port 5550, events on 5556
      serd listen                     what it publishes
    """


for _command in (
    run.command,
    replay.command,
    send.command,
    listen.command,
    events.command,
    demo.command,
    bench.command,
    status.command,
    doctor.command,
    check_config.command,
    keygen.command,
    models.command,
    audit.command,
    devices.command,
):
    cli.add_command(_command)


def execute(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process by default) and return its exit status."""
    try:
        status = cli.main(
            None if arguments is None else list(arguments), prog_name="serd", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        return os.EX_USAGE if isinstance(error, click.UsageError) else os.EX_NOINPUT
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    return status if isinstance(status, int) else os.EX_OK


def main() -> NoReturn:
    """Entry point of the ``serd`` script."""
    sys.exit(execute())
