"""``serd send``: play a recording as a tap."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from rich.progress import BarColumn as Bar
from rich.progress import Progress, TextColumn, TimeRemainingColumn

from serd.commands.common import output
from serd.commands.link import link, link_options
from serd.commands.playing import Recording, play, tap_socket
from serd.errors import InputError, MessageError
from serd.protocol.tap import Metadata
from serd.types import Encoding, Role

_ENCODINGS = {encoding.name.lower(): encoding for encoding in Encoding if encoding.sample_bytes}


def _speed(ctx: click.Context, parameter: click.Parameter, value: str) -> float | None:
    if value == "max":
        return None
    try:
        speed = float(value)
    except ValueError:
        speed = 0.0
    if not 0.01 <= speed <= 1000:
        raise click.BadParameter(f"{value!r} is neither a factor from 0.01 to 1000 nor max")
    return speed


def _labels(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, separator, _ in pairs:
        if not name or not separator:
            raise click.BadParameter("expected NAME=TEXT, as in queue=billing")
    return {name: text for name, _, text in pairs}


@click.command("send", short_help="Play a recording into a daemon.")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "endpoint",
    metavar="ENDPOINT",
    default="tcp://127.0.0.1:5550",
    show_default=True,
    help="Where the daemon takes audio.",
)
@click.option("--stream", metavar="ID", help="Stream id; default: the file's name without ending.")
@click.option(
    "--rate",
    "rate_hz",
    metavar="HZ",
    type=click.IntRange(8000, 48000),
    help="Resample before sending; default: the file's rate.",
)
@click.option(
    "--encoding",
    type=click.Choice(list(_ENCODINGS)),
    default="s16le",
    show_default=True,
    help="Encoding of the samples on the wire.",
)
@click.option(
    "--block-ms",
    metavar="MS",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="Audio in one message.",
)
@click.option(
    "--speed",
    metavar="FACTOR",
    default="1.0",
    show_default=True,
    callback=_speed,
    help="1.0 is real time; max is as fast as the daemon takes it.",
)
@click.option(
    "--socket",
    "kind",
    type=click.Choice(["PUSH", "PUB"], case_sensitive=False),
    default="PUSH",
    show_default=True,
    help="PUSH for a daemon's PULL, PUB for its SUB.",
)
@click.option("--bind", is_flag=True, help="Bind the endpoint instead of connecting to it.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in Role]),
    help="Who speaks; once for each channel.",
)
@click.option("--call-id", metavar="ID", help="Call that the stream belongs to.")
@click.option(
    "--label",
    "labels",
    metavar="NAME=TEXT",
    multiple=True,
    callback=_labels,
    help="Copied into the events of the stream. Repeatable.",
)
@link_options
@click.option(
    "--wait",
    "wait_s",
    metavar="S",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Longest wait for somebody who takes the audio.",
)
def command(
    path: Path,
    endpoint: str,
    stream: str | None,
    rate_hz: int | None,
    encoding: str,
    block_ms: int,
    speed: float | None,
    kind: Literal["PUSH", "PUB"],
    bind: bool,
    roles: tuple[str, ...],
    call_id: str | None,
    labels: dict[str, str],
    key_path: Path | None,
    peer_key: str | None,
    wait_s: float,
) -> None:
    """Play a recording into a running daemon, as a call-centre tap would.

    Each channel of the recording becomes a stream of its own: ID for one channel, ID/0, ID/1 and
    so on for several. Channels whose role is agent are refused by a daemon in its default
    configuration.

    \b
    Examples:
      serd send talk.wav
      serd send call.flac --stream call-42 --role customer --role agent --call-id 42
      serd send talk.wav --rate 8000 --encoding mulaw --block-ms 20
      serd send talk.wav --to tcp://10.0.0.5:5550 --speed max
    """
    recording = Recording(path, rate_hz)
    if roles and len(roles) != recording.channels:
        raise click.BadParameter(
            f"{len(roles)} given, but {path} has {recording.channels} channels",
            param_hint="'--role'",
        )
    metadata = None
    if roles or call_id or labels:
        metadata = Metadata(
            call_id=call_id,
            labels=labels or None,
            roles=tuple(Role(role) for role in roles) if roles else None,
        )
    name = stream if stream is not None else path.stem
    console = output(stderr=True)
    bar = Progress(
        TextColumn(f"{name} → {endpoint}"),
        Bar(),
        TextColumn("{task.completed:.1f} of {task.total:.1f} s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    try:
        curve = link(key_path, peer_key)
        with tap_socket(endpoint, kind, bind=bind, wait_s=wait_s, curve=curve) as send, bar:
            task = bar.add_task("", total=recording.duration_s)
            played = play(
                recording,
                name,
                send,
                encoding=_ENCODINGS[encoding],
                block_ms=block_ms,
                speed=speed,
                metadata=metadata,
                on_progress=lambda done_s: bar.update(task, completed=done_s),
            )
    except MessageError as error:
        raise InputError(error.code, error.message) from error
    console.print(
        f"sent {played.samples / recording.sample_rate_hz:.2f} s of audio"
        f" in {played.messages} messages as {name} to {endpoint}"
    )
