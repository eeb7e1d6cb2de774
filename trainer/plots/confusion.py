"""Confusion matrices: rows are the truth, shades the share of a row, small figures the count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from trainer.metrics import Int64, accuracy, uar
from trainer.plots.style import BLUE, CELL, INK, MUTED, PAPER, Chart, draw, percent


def confusion_chart(
    name: str, title: str, note: str, confusion: Int64, labels: Sequence[str]
) -> Chart:
    """A matrix of counts, int64 [labels, labels], normalised by row."""
    count = confusion.sum(axis=1)
    share = confusion / np.maximum(count, 1)[:, None]
    size = len(labels)

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False)
        axes.set_xlim(0, size)
        axes.set_ylim(size, 0)
        axes.set_aspect("equal")
        for row in range(size):
            for column in range(size):
                if count[row]:
                    _cell(axes, row, column, share[row, column], int(confusion[row, column]), size)
            if not count[row]:
                axes.text(
                    size / 2,
                    row + 0.5,
                    "none in this part",
                    ha="center",
                    va="center",
                    color=MUTED,
                    fontsize=7.5,
                )
        axes.set_xticks(np.arange(size) + 0.5, [short(label) for label in labels])
        axes.set_yticks(np.arange(size) + 0.5, [short(label, 14) for label in labels])
        axes.tick_params(length=0, colors=INK)
        if size > 4:
            for tick in axes.get_xticklabels():
                tick.set(rotation=40, ha="right", rotation_mode="anchor")
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")

    caption = (
        f"UAR {percent(uar(confusion))} %, accuracy {percent(accuracy(confusion))} %, "
        f"{int(count.sum())} utterances. Per cent of each row, counts below. {note}."
    )
    return draw(name, title, caption, plot, height=4.3, source=note)


def _cell(axes: Axes, row: int, column: int, share: float, count: int, size: int) -> None:
    edge = {"linewidth": 1.4, "edgecolor": INK} if row == column else {"linewidth": 0}
    gap = 0.03
    axes.add_patch(
        Rectangle(
            (column + gap, row + gap),
            1 - 2 * gap,
            1 - 2 * gap,
            facecolor=(BLUE, max(0.04, share)),
            **edge,
        )
    )
    if not count:
        return
    colour = PAPER if share > 0.75 else INK
    large, small = (11.0, 8.0) if size <= 4 else (9.0, 6.5) if size <= 7 else (8.0, 5.8)
    place: dict[str, Any] = {"x": column + 0.5, "color": colour, **CELL}
    axes.text(y=row + 0.42, s=f"{100 * share:.0f}", fontsize=large, **place)
    axes.text(y=row + 0.76, s=f"{count}", fontsize=small, alpha=0.85, **place)


def short(label: str, most: int = 11) -> str:
    """A label that fits a tick."""
    return label if len(label) <= most else label[: most - 1] + "…"
