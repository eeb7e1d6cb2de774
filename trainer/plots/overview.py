"""All results at a glance: UAR with its interval for each protocol, model and condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from trainer.plots.style import GREY, INK, MARKERS, MUTED, SERIES, Chart, draw


@dataclass(frozen=True, slots=True)
class Score:
    """UAR of a row under one condition."""

    row: str
    condition: str
    uar: float
    interval: tuple[float, float]


def overview_chart(name: str, title: str, scores: Sequence[Score], chance: float) -> Chart:
    """A row for each `Score.row`, a mark for each condition, in the order given."""
    rows = list(dict.fromkeys(score.row for score in scores))
    conditions = list(dict.fromkeys(score.condition for score in scores))

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        axes.axvline(chance, color=GREY, linewidth=1, linestyle=(0, (2, 2)))
        step = 0.5 / max(1, len(conditions))
        for i, condition in enumerate(conditions):
            found = [score for score in scores if score.condition == condition]
            place = [rows.index(s.row) + (i - (len(conditions) - 1) / 2) * step for s in found]
            value = np.asarray([s.uar for s in found])
            low = np.asarray([s.interval[0] for s in found])
            high = np.asarray([s.interval[1] for s in found])
            axes.errorbar(
                value,
                place,
                xerr=np.maximum(0, np.nan_to_num([value - low, high - value])),
                color=SERIES[i % len(SERIES)],
                marker=MARKERS[i % len(MARKERS)],
                markersize=5,
                linestyle="none",
                elinewidth=1.3,
                clip_on=False,
                label=condition,
            )
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel("UAR")
        axes.text(
            chance, 1.01, "chance", transform=axes.get_xaxis_transform(), ha="center",
            va="bottom", color=MUTED, fontsize=7,
        )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=len(conditions))

    caption = (
        "UAR, the mean recall over the classes, with 95 % bootstrap intervals, on the utterances "
        "of every fold's test part."
    )
    return draw(name, title, caption, plot, height=1.25 + 0.42 * len(rows))
