"""`serd-trainer predict`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainer.commands.common import EXIT_DATA, clear_errors
from trainer.errors import TrainerError

if TYPE_CHECKING:
    from trainer.predicting import Heard, Listener, Scored

_DEFAULT = "serd-crnn"


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path)
)
@click.option(
    "--model",
    default=_DEFAULT,
    show_default=True,
    help="A shipped model's name, a manifest, an ONNX file, or the folder of a training run.",
)
@click.option("--csv", "form", flag_value="csv", help="A line a file, with every score.")
@click.option("--json", "form", flag_value="json", help="One JSON object.")
@click.option("--segments", is_flag=True, help="Also what each segment of up to 3 s sounds like.")
@click.option("--whole-file", is_flag=True, help="Do not cut silence off the ends.")
@clear_errors
def predict(
    files: tuple[Path, ...], model: str, form: str | None, segments: bool, whole_file: bool
) -> None:
    """Say how each FILE sounds: any audio file, or a folder of them.

    A file is cut to its speech and into segments of 3 s every 1 s, as the daemon cuts it, and
    its scores are the mean of theirs. A file that cannot be read is told on stderr and the
    others go on; the exit code is then 65.
    """
    from trainer.predicting import find_listener

    listener = find_listener(model)
    if not listener.calibrated:
        click.echo(
            f"{listener.name}: no held-out speakers to calibrate on; scores are the network's own.",
            err=True,
        )
    heard = _listen(listener, _expand(files), whole_file)
    failed = {"csv": _csv, "json": _json}.get(form or "", _table)(listener, heard, segments)
    if failed:
        raise SystemExit(EXIT_DATA)


def _expand(files: Sequence[Path]) -> Iterator[Path]:
    from trainer.corpora.base import audio_files

    for path in files:
        inside = list(audio_files(path)) if path.is_dir() else []
        yield from inside or [path]


Results = Iterator["tuple[Path, Heard | TrainerError]"]


def _listen(listener: Listener, files: Iterator[Path], whole_file: bool) -> Results:
    from trainer.predicting import listen

    for path in files:
        try:
            yield path, listen(listener, path, whole_file)
        except TrainerError as error:
            click.echo(f"Error: {error}", err=True)
            yield path, error


def _rows(heard: Heard, segments: bool) -> list[tuple[str, Scored]]:
    parts = [("segment", part) for part in heard.segments] if segments else []
    return [("file", heard.whole), *parts]


def _said(listener: Listener, scored: Scored) -> tuple[str, float, bool]:
    best = scored.best()
    top = float(scored.scores[best])
    return listener.labels[best], top, top < listener.abstain_below


def _csv(listener: Listener, heard: Results, segments: bool) -> int:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    head = ("path", "part", "start_s", "end_s", "label", "score", "abstained")
    writer.writerow((*head, *listener.labels))
    failed = 0
    for path, found in heard:
        if isinstance(found, TrainerError):
            failed += 1
            continue
        for part, scored in _rows(found, segments):
            label, top, abstained = _said(listener, scored)
            writer.writerow(
                (
                    path,
                    part,
                    f"{scored.start_s:.3f}",
                    f"{scored.end_s:.3f}",
                    label,
                    f"{top:.4f}",
                    "yes" if abstained else "no",
                    *(f"{value:.4f}" for value in scored.scores),
                )
            )
        sys.stdout.flush()
    return failed


def _as_json(listener: Listener, scored: Scored) -> dict[str, Any]:
    label, top, abstained = _said(listener, scored)
    scores = zip(listener.labels, scored.scores.tolist(), strict=True)
    return {
        "start_s": round(scored.start_s, 3),
        "end_s": round(scored.end_s, 3),
        "label": label,
        "score": round(top, 6),
        "abstained": abstained,
        "scores": {name: round(value, 6) for name, value in scores},
    }


def _json(listener: Listener, heard: Results, segments: bool) -> int:
    files: list[dict[str, Any]] = []
    failed = 0
    for path, found in heard:
        if isinstance(found, TrainerError):
            failed += 1
            files.append({"path": str(path), "error": str(found)})
            continue
        one = {"path": str(path), **_as_json(listener, found.whole)}
        if segments:
            one["segments"] = [_as_json(listener, part) for part in found.segments]
        files.append(one)
    content = {"model": listener.name, "labels": list(listener.labels), "files": files}
    click.echo(json.dumps(content, indent=1, ensure_ascii=False))
    return failed


def _table(listener: Listener, heard: Results, segments: bool) -> int:
    click.echo(f"{listener.name}: abstains below {listener.abstain_below:.2f}", err=True)
    failed = 0
    for path, found in heard:
        if isinstance(found, TrainerError):
            failed += 1
            continue
        click.echo(_line(listener, str(path), found.whole))
        for part in found.segments if segments else ():
            click.echo(_line(listener, f"  {part.start_s:.2f} to {part.end_s:.2f} s", part))
    return failed


def _line(listener: Listener, name: str, scored: Scored) -> str:
    label, top, abstained = _said(listener, scored)
    order = scored.scores.argsort()[::-1][1:3]
    others = ", ".join(f"{listener.labels[i]} {scored.scores[i]:.2f}" for i in order)
    unsure = " (abstained)" if abstained else ""
    return f"{name}: {label} {top:.2f}{unsure}, {others}"
