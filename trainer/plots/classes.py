"""Recall, precision and F1 of each class, with bootstrap intervals."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from trainer.plots.confusion import short
from trainer.plots.style import AMBER, BLUE, GREEN, INK, Chart, draw
from trainer.report import Row

_BARS = (("recall", "recall", BLUE), ("precision", "precision", AMBER), ("F1", "f1", GREEN))


def classes_chart(name: str, title: str, note: str, row: Row) -> Chart:
    """Three bars for each class that occurs in the row."""
    classes = row.classes

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        rows = np.arange(len(classes), dtype=np.float64)
        thick = 0.25
        for i, (text, key, colour) in enumerate(_BARS):
            estimates = [getattr(one, key) for one in classes]
            values = np.asarray([estimate.value or 0.0 for estimate in estimates])
            spans = np.asarray(
                [
                    [value if bound is None else bound for bound in row.shown(one) or (None, None)]
                    for one, value in zip(estimates, values, strict=True)
                ]
            ).reshape(-1, 2)
            axes.barh(
                rows + (i - 1) * thick,
                values,
                height=thick * 0.86,
                color=colour,
                alpha=0.85,
                label=text,
                xerr=np.maximum(0, [values - spans[:, 0], spans[:, 1] - values]),
                error_kw={"ecolor": INK, "elinewidth": 0.9, "capsize": 1.6, "capthick": 0.9},
            )
        axes.set_yticks(rows, [f"{short(one.label, 14)} ({one.count})" for one in classes])
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.set_ylim(len(classes) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        figure.legend(loc="outside lower center", ncols=3)

    caption = (
        f"With 95 % bootstrap intervals over {row.interval_over}; in brackets the count of "
        f"utterances. {note}."
    )
    return draw(name, title, caption, plot, height=1.0 + 0.4 * len(classes), source=note)
