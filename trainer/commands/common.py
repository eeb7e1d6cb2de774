"""What the commands share: places, and how a user's mistake ends."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from trainer.errors import TrainerError

EXIT_DATA = 65
FOLDER = click.Path(file_okay=False, path_type=Path)

Command = Callable[..., None]


class Failure(click.ClickException):
    """A sentence on stderr and exit status 65 (`EX_DATAERR`)."""

    exit_code = EXIT_DATA


def clear_errors(command: Command) -> Command:
    """Turn a `TrainerError`, or a package that is missing, into a sentence without a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except TrainerError as error:
            raise Failure(str(error)) from None
        except ModuleNotFoundError as error:
            raise Failure(f"{error.name} is missing: pip install 'serd[train]'") from None

    return run


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "serd-trainer"


def data_option(command: Command) -> Command:
    """`--data`: the folder that holds corpora/ and noise/."""
    return click.option(
        "--data",
        type=FOLDER,
        default=Path("../shared"),
        envvar="SERD_SHARED",
        show_default=True,
        show_envvar=True,
        help="Folder that holds corpora/ and noise/.",
    )(command)


def cache_option(command: Command) -> Command:
    """`--cache`: a folder for what is made of the data."""
    return click.option(
        "--cache",
        type=FOLDER,
        default=_default_cache,
        help="Folder for decoded and degraded audio; may be deleted at any time.",
    )(command)


def places(command: Command) -> Command:
    """`--data` and `--cache`."""
    return cache_option(data_option(command))


def one_network(command: Command) -> Command:
    """`--recipe`, `--out` and `--threads`, of what trains one network by a recipe of its own."""
    recipe = click.option(
        "--recipe",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Recipe; default: the shipped model's.",
    )
    out = click.option("--out", type=FOLDER, required=True, help="Folder for the run.")
    threads = click.option("--threads", default=1, show_default=True, help="Processor threads.")
    return recipe(out(threads(command)))
