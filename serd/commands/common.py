"""What several commands share: options, consoles, and the error of a missing peer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import click
from rich.console import Console

from serd.errors import SerdError

P = ParamSpec("P")
R = TypeVar("R")


class PeerError(SerdError):
    """Nobody at the other end of a socket."""

    exit_code = os.EX_UNAVAILABLE


class Output(Console):
    """A rich console that leaves a closed pipe to `serd.cli`, in every version of rich."""

    def on_broken_pipe(self) -> NoReturn:
        """Called by rich while it handles the error, which then goes on its way."""
        raise BrokenPipeError


def output(*, stderr: bool = False) -> Output:
    """A console on the current standard output or error; plain text when it is no terminal."""
    console = Output(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        # Tables that are piped on must not be cut to the 80 columns that rich then assumes.
        console.width = 200
    return console


@contextmanager
def ended_by_closed_pipe() -> Iterator[None]:
    """Let the process end silently when whoever reads its standard output goes away.

    For commands whose output is written by threads of a pipeline, where an exception would look
    like a failure of the pipeline. Not for commands with sockets, which rely on the signal being
    ignored.
    """
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)


def config_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add ``--config`` and ``--set``; the command receives `config_path` and `overrides`."""
    command = click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Lay one key over the configuration, as in segment.hop_s=0.5 or"
        " sources.0.bind=tcp://127.0.0.1:6000. Values are TOML; plain text needs no quotes."
        " Repeatable.",
    )(command)
    return click.option(
        "--config",
        "-c",
        "config_path",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Configuration file (TOML); the defaults otherwise.",
    )(command)
