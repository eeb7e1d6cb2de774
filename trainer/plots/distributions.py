"""How descriptors are distributed by emotion: violins, and a profile of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from trainer.metrics import Float64
from trainer.plots.confusion import short
from trainer.plots.descriptors import DESCRIPTORS, Descriptor, Measured
from trainer.plots.style import BLUE, CELL, INK, ORANGE, Chart, draw, label_colours, slug

# Below this a density says nothing: the points themselves are shown.
_FEW = 5
SHOWN = ("pitch", "pitch_range", "level", "duration", "centroid", "zcr", "mfcc1", "mfcc2", "mfcc3")


def distribution_charts(measured: Measured, labels: Sequence[str]) -> list[Chart]:
    """A chart for each descriptor of `SHOWN` that has values."""
    return [
        _chart(measured, descriptor, labels)
        for descriptor in DESCRIPTORS
        if descriptor.key in SHOWN and np.isfinite(measured.column(descriptor.key)).any()
    ]


def _chart(measured: Measured, descriptor: Descriptor, labels: Sequence[str]) -> Chart:
    values = measured.column(descriptor.key)
    label = np.asarray([r.label for r in measured.recordings])
    sex = np.asarray([r.sex for r in measured.recordings])
    split = descriptor.key == "pitch" and {"female", "male"} <= set(sex.tolist())
    colours = label_colours(labels)

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False, axis="x")
        for i, name in enumerate(labels):
            rows = (label == name) & np.isfinite(values)
            if split:
                for side in ("female", "male"):
                    _violin(axes, values[rows & (sex == side)], i, colours[name], side)
            else:
                _violin(axes, values[rows], i, colours[name])
        axes.set_xlim(-0.6, len(labels) - 0.4)
        axes.set_xticks(range(len(labels)), [short(name) for name in labels])
        axes.tick_params(axis="x", length=0, colors=INK)
        if len(labels) > 4:
            for tick in axes.get_xticklabels():
                tick.set(rotation=35, ha="right", rotation_mode="anchor")
        axes.set_ylabel(descriptor.unit)

    caption = "Violin: density; bar: middle half; line: median."
    if split:
        caption = "Left halves: women; right halves, paler: men. Bar: middle half; line: median."
    return draw(slug("distribution", descriptor.key), descriptor.title, caption, plot, height=2.9)


def _violin(axes: Axes, values: Float64, place: int, colour: str, side: str = "") -> None:
    if not len(values):
        return
    shift = {"female": -0.04, "male": 0.04, "": 0.0}[side]
    alpha = 0.3 if side == "male" else 0.55
    if len(values) < _FEW:
        axes.scatter(np.full(len(values), place + 3 * shift), values, s=9, color=colour)
        return
    parts = axes.violinplot(values, [place], widths=0.85, showextrema=False, points=60)
    for body in parts["bodies"]:  # type: ignore[attr-defined]  # a list, typed as a collection
        body.set(facecolor=colour, edgecolor=colour, alpha=alpha, linewidth=0.8)
        if side:
            across = body.get_paths()[0].vertices[:, 0]
            low, high = (-np.inf, place) if side == "female" else (place, np.inf)
            across[:] = np.clip(across, low, high)
            across += shift / 2
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    at = place + 2 * shift
    axes.plot([at, at], [low, high], color=INK, linewidth=2.4, solid_capstyle="butt", alpha=0.8)
    axes.plot([at - 0.09, at + 0.09], [middle, middle], color=INK, linewidth=1.4)


def profile_chart(measured: Measured, labels: Sequence[str]) -> Chart | None:
    """Mean of each descriptor by emotion, in deviations from the speaker's own mean.

    None where no speaker has two recordings.
    """
    relative = _by_speaker(measured)
    label = np.asarray([r.label for r in measured.recordings])
    rows = [name for name in labels if (label == name).any()]
    if not rows or not np.isfinite(relative).any():
        return None
    mean = np.zeros((len(rows), len(DESCRIPTORS)))
    for i, name in enumerate(rows):
        chosen = relative[label == name]
        count = np.isfinite(chosen).sum(axis=0)
        mean[i] = np.nansum(chosen, axis=0) / np.maximum(count, 1)
    limit = 1.5

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False)
        axes.set_xlim(0, len(rows))
        axes.set_ylim(len(DESCRIPTORS), 0)
        for y in range(len(DESCRIPTORS)):
            for x in range(len(rows)):
                value = float(np.clip(mean[x, y] / limit, -1, 1))
                colour = ORANGE if value > 0 else BLUE
                face = (colour, max(0.03, abs(value)))
                axes.add_patch(
                    Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, facecolor=face, linewidth=0)
                )
                axes.text(
                    x + 0.5,
                    y + 0.53,
                    _signed(mean[x, y]),
                    fontsize=6.5,
                    **CELL,
                    color=INK if abs(value) < 0.75 else "#fefefe",
                )
        axes.set_xticks(np.arange(len(rows)) + 0.5, [short(name) for name in rows])
        names = [d.title.partition(" (")[0] for d in DESCRIPTORS]
        axes.set_yticks(np.arange(len(names)) + 0.5, names)
        axes.tick_params(length=0, colors=INK)
        for tick in axes.get_xticklabels():
            tick.set(rotation=35, ha="right", rotation_mode="anchor")
        for spine in axes.spines.values():
            spine.set_visible(False)

    caption = (
        "Mean of each value in standard deviations from the mean of the same speaker: "
        "orange above, blue below."
    )
    return draw("profile", "What sets the emotions apart", caption, plot, height=5.2)


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "−")


def _by_speaker(measured: Measured) -> Float64:
    speaker = np.asarray([r.speaker_id for r in measured.recordings])
    relative = np.full(measured.values.shape, np.nan)
    for name in np.unique(speaker):
        rows = speaker == name
        values = measured.values[rows]
        count = np.isfinite(values).sum(axis=0)
        mean = np.nansum(values, axis=0) / np.maximum(count, 1)
        spread = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / np.maximum(count, 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            relative[rows] = np.where(spread > 1e-9, (values - mean) / spread, np.nan)
    return relative
