"""Options of the commands that connect to a daemon: whose key it has, and one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from serd.curve import CurveKeys, Link, is_key

P = ParamSpec("P")
R = TypeVar("R")


def _peer_key(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not is_key(value):
        raise click.BadParameter("is no public key of 40 characters, as serd keygen prints it")
    return value


def link_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add ``--key`` and ``--peer-key``; the command receives `key_path` and `peer_key`."""
    command = click.option(
        "--peer-key",
        metavar="KEY",
        callback=_peer_key,
        help="CURVE: public key of the other side (serd keygen --public prints it).",
    )(command)
    return click.option(
        "--key",
        "key_path",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="CURVE: file with your secret key, made by serd keygen.",
    )(command)


def link(key_path: Path | None, peer_key: str | None) -> Link | None:
    """The keys that were given; None if none were.

    Raises
    ------
    ConfigError
        The file cannot be used.
    click.UsageError
        One without the other.
    """
    if key_path is None and peer_key is None:
        return None
    if key_path is None or peer_key is None:
        raise click.UsageError("--key and --peer-key come together")
    return Link(CurveKeys.read(key_path), peer_key)
