"""``serd keygen``: a pair of CURVE keys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from serd.curve import RIGHTS, CurveKeys
from serd.errors import DaemonError


class KeyFileError(DaemonError):
    """A secret key cannot be written where it was asked for."""

    exit_code = os.EX_CANTCREAT


def write_secret(path: Path, keys: CurveKeys) -> None:
    """Write a secret key to a new file that only its owner may read.

    Raises
    ------
    KeyFileError
        Codes ``key_exists`` and ``key_unwritable``.
    """
    try:
        # Never readable to others, not even for a moment, and never in place of another key.
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise KeyFileError(
            "key_exists",
            f"{path} exists and is not overwritten: whoever knows its public key would be shut"
            " out; choose another name, or move it away first",
        ) from None
    except OSError as error:
        raise KeyFileError("key_unwritable", f"{path}: {error.strerror or error}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(keys.secret + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise KeyFileError("key_unwritable", f"{path}: {error.strerror or error}") from error


@click.command("keygen", short_help="Make a key for a daemon or for somebody who uses one.")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--name", metavar="NAME", help="Name of the peer in the lines printed; default: the file's."
)
@click.option(
    "--may",
    "rights",
    multiple=True,
    type=click.Choice(RIGHTS),
    help="What the peer shall be allowed. Repeatable; default: send.",
)
@click.option("--public", "show", is_flag=True, help="Print the public key of an existing FILE.")
def command(path: Path, name: str | None, rights: Sequence[str], show: bool) -> None:
    """Make a pair of keys; the secret one goes to FILE, which only you may read (mode 0600).

    FILE must not exist. Standard output has the public key and the lines that put it into a
    configuration: the daemon's into those who use it, and theirs into the daemon's. The secret key
    is never printed. Whoever has FILE is its owner to everybody else, so it stays on one machine.

    \b
    Examples:
      serd keygen serd.secret
      serd keygen pbx-1.secret --name pbx-1 --may send
      serd keygen dashboard.secret --may subscribe --may replay
      serd keygen --public serd.secret
    """
    if show:
        click.echo(CurveKeys.read(path).public)
        return
    keys = CurveKeys.generate()
    write_secret(path, keys)
    may = ", ".join(f'"{right}"' for right in rights or ("send",))
    click.echo(
        f"""public key: {keys.public}

# for the daemon that this is the key of:
[security]
curve = true
secret_key = "{path}"

# for a daemon that lets this key in:
[[security.peers]]
name = "{name or path.stem}"
public_key = "{keys.public}"
may = [{may}]"""
    )
