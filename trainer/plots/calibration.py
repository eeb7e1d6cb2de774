"""Reliability: how often a model is right when it says that it is so sure.

Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from trainer.metrics import Reliability
from trainer.plots.style import GREY, LINES, MARKERS, SERIES, Chart, draw


def reliability_chart(name: str, title: str, note: str, series: Mapping[str, Reliability]) -> Chart:
    """Accuracy against confidence for each condition, with the count of utterances below."""
    bins = max((len(one.count) for one in series.values()), default=0)

    def plot(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (2, 2)))
        for i, (condition, one) in enumerate(series.items()):
            there = one.count > 0
            if not there.any():
                continue
            colour, line = SERIES[i % len(SERIES)], LINES[i % len(LINES)]
            upper.plot(
                one.confidence[there],
                one.accuracy[there],
                color=colour,
                linestyle=line,
                marker=MARKERS[i % len(MARKERS)],
                markersize=4,
                clip_on=False,
                label=f"{condition}, ECE {one.error:.3f}",
            )
            edges = np.linspace(0, 1, len(one.count) + 1)
            lower.stairs(one.count, edges, color=colour, linewidth=1.4, linestyle=line)
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
        figure.legend(loc="outside lower center", ncols=2)
        lower.set(xlabel="confidence (highest score)", ylabel="count")
        lower.locator_params(axis="y", nbins=3)

    caption = (
        f"Below the dotted line the model is surer than it should be. {bins} bins of equal width; "
        f"ECE: expected calibration error. {note}."
    )
    return draw(name, title, caption, plot, height=4.0, source=note)
