"""``serd bench``: how many live calls a machine holds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serd.commands.common import config_options, output
from serd.config.loading import load
from serd.errors import InputError
from serd.types import Encoding

if TYPE_CHECKING:
    from serd.bench.figures import Report

_NOT_HELD = 1
_NO_RESULT = os.EX_TEMPFAIL
_MOST_STREAMS = 100_000


def _numbers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[int]:
    try:
        numbers = [int(text) for text in value.split(",")] if value else []
    except ValueError:
        numbers = [0]
    if any(not 1 <= number <= _MOST_STREAMS for number in numbers):
        raise click.BadParameter(f"expected numbers of streams, as in 1,10,100; not {value!r}")
    return sorted(set(numbers))


@click.command("bench", short_help="Measure how many live calls this machine holds.")
@click.option(
    "--streams",
    "-n",
    type=click.IntRange(1, _MOST_STREAMS),
    default=60,
    show_default=True,
    help="Live channels; with --find-max where the search begins.",
)
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(1, 86_400),
    default=30.0,
    show_default=True,
    help="Measured time of a run, after its warm-up.",
)
@click.option(
    "--warm-up",
    "warm_up_s",
    metavar="S",
    type=click.FloatRange(0.5, 3600),
    default=10.0,
    show_default=True,
    help="Time before it, in which the streams join one by one.",
)
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON on standard output.")
@click.option(
    "--plot",
    "plot_path",
    metavar="FILE.svg",
    type=click.Path(path_type=Path),
    help="Draw processor time, latency and memory: over time, or against streams.",
)
@click.option(
    "--p99-ms",
    "bound_ms",
    metavar="MS",
    type=click.FloatRange(1, 60_000),
    default=250.0,
    show_default=True,
    help="Bound of the 99th percentile of the latency.",
)
@click.option("--find-max", is_flag=True, help="Search for the most streams that hold.")
@click.option(
    "--curve",
    metavar="N,N,…",
    callback=_numbers,
    help="One run for each of these numbers of streams.",
)
@click.option(
    "--surge",
    metavar="M",
    type=click.IntRange(1, _MOST_STREAMS),
    help="So many more streams come for the middle third, to see what is shed and how it recovers.",
)
@click.option(
    "--encoding",
    type=click.Choice(["mulaw", "s16le"]),
    default="mulaw",
    show_default=True,
    help="G.711 µ-law at 8 kHz, or 16-bit samples at 16 kHz.",
)
@click.option(
    "--socket",
    type=click.Choice(["SUB", "PULL"], case_sensitive=False),
    default="SUB",
    show_default=True,
    help="The daemon's: SUB loses what it cannot take, PULL makes the taps wait.",
)
@click.option(
    "--taps",
    metavar="K",
    type=click.IntRange(1, 256),
    default=4,
    show_default=True,
    help="Connections that the streams are spread over.",
)
@click.option(
    "--jitter-ms",
    metavar="MS",
    type=click.FloatRange(0, 400),
    default=0.0,
    help="Messages leave up to so much later.",
)
@click.option(
    "--loss",
    metavar="SHARE",
    type=click.FloatRange(0, 0.5),
    default=0.0,
    help="Share of the messages that never leave, 0 to 0.5.",
)
@click.option(
    "--suppress-silence", is_flag=True, help="Taps send nothing while their speaker is silent."
)
@click.option(
    "--recording",
    "recordings",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Speech to make the calls of, instead of the shipped synthetic one. Repeatable.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the calls.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where the model runs; short for --set inference.device=….",
)
@config_options
@click.pass_context
def command(
    ctx: click.Context,
    streams: int,
    seconds: float,
    warm_up_s: float,
    as_json: bool,
    plot_path: Path | None,
    bound_ms: float,
    find_max: bool,
    curve: list[int],
    surge: int | None,
    encoding: str,
    socket: str,
    taps: int,
    jitter_ms: float,
    loss: float,
    suppress_silence: bool,
    recordings: tuple[Path, ...],
    seed: int,
    device: str | None,
    config_path: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Measure a daemon under live calls: loss, latency, processor time, memory.

    Starts a real daemon on free ports and plays calls into it in real time, as taps would: 50
    messages a second on each channel, from a load generator that shares the machine's cores and
    tells what it used of them. The calls are made of recorded speech in realistic turns: each
    channel speaks for 40 to 45 % of the time. What must come of them is worked out beforehand, so
    that every missing event is found.

    Latency counts from the moment at which the tap sent the message with the sample that decided a
    segment (its last sample while speech goes on; at the end of an utterance the end of the
    hangover, before which nobody can know that it is over) to the arrival of the segment's event
    at a subscriber.

    The exit status is 0 if nothing was lost and the bound on the latency held, 1 if not, and 75 if
    the load generator could not keep up, so that there is no result. With --find-max it is 0 if
    any number of streams held, with --curve if all did, with --surge if the streams that were not
    shed kept the bound and the others were taken back before the end.

    \b
    Examples:
      serd bench
      serd bench --streams 600 --seconds 60 --json
      serd bench --find-max --streams 200
      serd bench --curve 1,10,100,1000 --plot curve.svg
      serd bench --streams 500 --surge 1000 --seconds 90
    """
    # Here, so that other commands do not wait for what only this one needs.
    from serd.bench.charts import curve_chart, machine_text, run_chart
    from serd.bench.run import Settings
    from serd.bench.session import Session
    from serd.bench.table import probes, table, verdict
    from serd.bench.tape import Line

    if find_max + bool(curve) + (surge is not None) > 1:
        raise click.UsageError("--find-max, --curve and --surge exclude each other")
    if device is not None:
        overrides = (*overrides, f"inference.device={device}")
    config = load(config_path, overrides)
    if plot_path is not None and not plot_path.parent.is_dir():
        raise InputError("output_unwritable", f"{plot_path}: there is no such folder")
    settings = Settings(
        streams,
        seconds,
        Encoding[encoding.upper()],
        socket.upper(),
        taps,
        Line(jitter_ms, loss, suppress_silence),
        seed,
        warm_up_s,
        surge or 0,
    )
    session = Session(
        settings, config, config_path, overrides, recordings, bound_ms, output(stderr=True)
    )
    if find_max:
        most, reports = session.find_most()
        content: Any = {"most": most, "probes": [asdict(found) for found in reports]}
        status = os.EX_OK if most else _status(reports)
    elif curve:
        reports = session.curve(curve)
        content = {"points": [asdict(found) for found in reports]}
        status = _status(reports)
    else:
        reports = [session.single()]
        content = asdict(reports[0])
        status = _status(reports)
    if plot_path is not None:
        _write(plot_path, run_chart(reports[0]) if len(reports) == 1 else curve_chart(reports))
    if as_json:
        click.echo(json.dumps(content, indent=1))
    elif find_max or curve:
        results = output()
        results.print(probes(reports))
        results.print(machine_text(reports[0]), style="dim")
    else:
        results = output()
        results.print(table(reports[0]))
        results.print(verdict(reports[0]))
    ctx.exit(status)


def _status(reports: Sequence[Report]) -> int:
    if not all(report.valid for report in reports):
        return _NO_RESULT
    return os.EX_OK if all(report.held for report in reports) else _NOT_HELD


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise InputError("output_unwritable", f"{path}: {error.strerror or error}") from error
