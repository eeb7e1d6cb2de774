"""What a corpus holds: utterances by emotion and sex, by speaker, and their durations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from trainer.plots.confusion import short
from trainer.plots.recordings import Recording
from trainer.plots.style import (
    BLUE,
    CELL,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    Chart,
    draw,
    label_colours,
)

_SEXES = (("female", ORANGE), ("male", BLUE), ("", GREY))
_MOST_SPEAKERS = 40


def label_chart(recordings: Sequence[Recording], labels: Sequence[str]) -> Chart:
    """Utterances of each emotion, women, men and unknown one after another."""
    count = np.asarray(
        [
            [sum(r.label == label and r.sex == sex for r in recordings) for label in labels]
            for sex, _ in _SEXES
        ]
    )

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        left = np.zeros(len(labels))
        for (sex, colour), row in zip(_SEXES, count, strict=True):
            if row.any():
                axes.barh(
                    range(len(labels)),
                    row,
                    left=left,
                    height=0.66,
                    color=colour,
                    label=sex or "sex not stated",
                )
                left = left + row
        for i, total in enumerate(left):
            axes.annotate(
                f"{total:.0f}",
                (total, i),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.set_yticks(range(len(labels)), [short(label, 16) for label in labels])
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.set_xlabel("utterances")
        figure.legend(loc="outside lower center", ncols=3)

    caption = f"{len(recordings)} utterances."
    return draw("counts-label", "Utterances by emotion", caption, plot, 1.3 + 0.27 * len(labels))


def speaker_chart(recordings: Sequence[Recording], labels: Sequence[str]) -> Chart:
    """Utterances of each speaker and emotion."""
    everyone = sorted({r.speaker for r in recordings})
    speakers = everyone[:_MOST_SPEAKERS]
    count = np.zeros((len(speakers), len(labels)), np.int64)
    for recording in recordings:
        if recording.speaker in speakers and recording.label in labels:
            count[speakers.index(recording.speaker), labels.index(recording.label)] += 1
    most = max(1, int(count.max()))

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False)
        axes.set_xlim(0, len(labels))
        axes.set_ylim(len(speakers), 0)
        for y in range(len(speakers)):
            for x in range(len(labels)):
                share = count[y, x] / most
                face = (BLUE, 0.03 + 0.8 * share)
                axes.add_patch(
                    Rectangle((x + 0.02, y + 0.05), 0.96, 0.9, facecolor=face, linewidth=0)
                )
                axes.text(
                    x + 0.5,
                    y + 0.54,
                    f"{count[y, x]}",
                    fontsize=7,
                    **CELL,
                    color=PAPER if share > 0.85 else INK,
                )
        axes.set_xticks(np.arange(len(labels)) + 0.5, [short(label) for label in labels])
        axes.set_yticks(np.arange(len(speakers)) + 0.5, [short(s, 18) for s in speakers])
        axes.tick_params(length=0, colors=INK)
        for tick in axes.get_xticklabels():
            tick.set(rotation=35, ha="right", rotation_mode="anchor")
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_ylabel("speaker")

    caption = f"{len(everyone)} speakers."
    if len(everyone) > len(speakers):
        caption = f"The first {len(speakers)} of {len(everyone)} speakers."
    height = 1.1 + 0.19 * len(speakers)
    return draw("counts-speaker", "Utterances by speaker", caption, plot, height)


def duration_chart(
    recordings: Sequence[Recording], seconds: Mapping[Path, float], labels: Sequence[str]
) -> Chart:
    """Length of the files of each emotion: the middle half, the median and the outermost."""
    groups = [
        [seconds[r.path] for r in recordings if r.label == label and r.path in seconds]
        for label in labels
    ]
    colours = label_colours(labels)

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        for i, (label, values) in enumerate(zip(labels, groups, strict=True)):
            if not values:
                continue
            low, first, middle, third, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
            axes.plot([low, high], [i, i], color=MUTED, linewidth=1)
            axes.barh(i, third - first, left=first, height=0.5, color=colours[label], alpha=0.75)
            axes.plot([middle, middle], [i - 0.3, i + 0.3], color=INK, linewidth=1.8)
        axes.set_yticks(range(len(labels)), [short(label, 16) for label in labels])
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds")

    total = sum(map(sum, groups))
    caption = (
        f"{total / 3600:.2f} hours of whole files, silence included. Bar: middle half; mark: "
        "median; line: shortest to longest."
    )
    return draw("durations", "Length of the files", caption, plot, 1.1 + 0.27 * len(labels))
