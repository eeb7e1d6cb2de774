"""Curves of a training: loss, accuracy, UAR and learning rate over epochs, from `log.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trainer.metrics import Float64
from trainer.plots.style import LINES, SERIES, Chart, draw, slug

Log = dict[str, Float64]

_PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("loss", "Loss", {"loss": "training", "validation_loss": "validation"}),
    (
        "accuracy",
        "Accuracy",
        {"accuracy": "training", "validation_accuracy": "validation"},
    ),
    (
        "uar",
        "UAR on the validation part",
        {
            "validation_uar": "clean",
            "telephone_uar": "telephone",
            "whole_file_uar": "whole file",
        },
    ),
    ("rate", "Learning rate", {"learning_rate": "learning rate"}),
)
"""Key, title, and the columns of the log with what a legend calls them."""


def read_log(path: Path) -> Log | None:
    """Columns of a log that hold numbers, by name: float64 [epochs]; None if there is no such log.

    Cells that cannot be read are nan. Rows without an epoch, as the last one after a kill, are left
    out.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error):
        return None
    if not rows:
        return None
    columns = {
        name: np.asarray([_number(row.get(name)) for row in rows], np.float64)
        for name in rows[0]
        if name
    }
    if "epoch" in columns:
        whole = np.isfinite(columns["epoch"])
        columns = {name: values[whole] for name, values in columns.items()}
    return {name: values for name, values in columns.items() if np.isfinite(values).any()} or None


def _number(cell: object) -> float:
    try:
        return float(str(cell))
    except ValueError:
        return float("nan")


def _epochs(log: Log, values: Float64) -> Float64:
    return log.get("epoch", np.arange(1, len(values) + 1, dtype=np.float64))


def _mean(logs: Sequence[Log], name: str) -> tuple[Float64, Float64]:
    """Epochs that every fold reached, and the folds' mean there."""
    found = [(_epochs(log, log[name]), log[name]) for log in logs if name in log]
    shared = found[0][0]
    for epochs, _ in found[1:]:
        shared = np.intersect1d(shared, epochs)
    values = [np.interp(shared, epochs, series) for epochs, series in found]
    return shared, np.mean(values, axis=0)


def curve_charts(name: str, note: str, logs: Mapping[str, Log]) -> list[Chart]:
    """Up to four charts of a model's folds: thin lines the folds, a thick one their mean."""
    charts = []
    for key, title, columns in _PANELS:
        names = {n: words for n, words in columns.items() if any(n in log for log in logs.values())}
        if not names:
            continue
        folds = f"{len(logs)} folds (thin) and their mean"
        caption = f"{note}: {folds if len(logs) > 1 else f'fold {next(iter(logs))}'}."

        def plot(figure: Figure, names: dict[str, str] = names, key: str = key) -> None:
            _plot(figure, list(logs.values()), names, key)

        height = 2.3 if key == "rate" else 2.9
        stem = slug("curve", key, name)
        charts.append(draw(stem, title, caption, plot, height, source=note))
    return charts


def _plot(figure: Figure, logs: Sequence[Log], names: Mapping[str, str], key: str) -> None:
    axes = figure.subplots()
    for i, (name, words) in enumerate(names.items()):
        colour = SERIES[i % len(SERIES)]
        if len(logs) > 1:
            for log in logs:
                if name in log:
                    x = _epochs(log, log[name])
                    axes.plot(x, log[name], color=colour, alpha=0.35, linewidth=0.8, clip_on=False)
        x, y = _mean(logs, name)
        if not np.isfinite(y).any():
            continue
        axes.plot(
            x,
            y,
            color=colour,
            linestyle=LINES[i % len(LINES)],
            linewidth=2,
            marker="o" if len(x) == 1 else "",
            label=words,
            clip_on=False,
        )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if key in {"accuracy", "uar"}:
        axes.set_ylim(max(0.0, min(axes.get_ylim()[0], 0.5)), 1.0)
    if key == "rate":
        axes.set_ylim(bottom=0)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(loc="best")
