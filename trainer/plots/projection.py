"""Embeddings in two dimensions: principal components and t-SNE (van der Maaten & Hinton, 2008)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from trainer.metrics import Float64
from trainer.plots.style import MARKERS, SERIES, Chart, draw, label_colours, slug

MOST_POINTS = 900
_MOST_GROUPS = 24
# Neighbours of fewer points than this say nothing.
_FEWEST = 12


def _standardised(embedding: npt.NDArray[np.floating]) -> Float64:
    values = np.asarray(embedding, np.float64)
    spread = values.std(axis=0)
    used = spread > 1e-9
    return np.asarray((values[:, used] - values[:, used].mean(axis=0)) / spread[used], np.float64)


def project(embedding: npt.NDArray[np.floating], seed: int) -> list[tuple[str, Float64]]:
    """Projections by name, each float64 [points, 2]; none for too few points or dimensions."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    values = _standardised(embedding)
    if len(values) < 5 or values.shape[1] < 2 or not np.isfinite(values).all():
        return []
    parts = PCA(min(50, *values.shape), svd_solver="full").fit(values)
    reduced = np.asarray(parts.transform(values), np.float64)
    share = parts.explained_variance_ratio_[:2].sum()
    found = [(f"PCA ({share:.0%} of the variance)", reduced[:, :2])]
    if len(values) >= _FEWEST:
        near = TSNE(
            2,
            perplexity=min(30.0, (len(values) - 1) / 3),
            init="pca",
            learning_rate="auto",
            random_state=seed,
            n_jobs=1,
        )
        found.append(("t-SNE", np.asarray(near.fit_transform(reduced), np.float64)))
    return found


def subset(count: int, seed: int) -> npt.NDArray[np.int64]:
    """Rows of at most `MOST_POINTS` points, in order, the same every time."""
    if count <= MOST_POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, MOST_POINTS, replace=False))


def projection_charts(
    name: str,
    note: str,
    embedding: npt.NDArray[np.floating],
    groups: Sequence[tuple[str, Sequence[str], npt.NDArray[np.str_]]],
    seed: int = 0,
) -> list[Chart]:
    """A chart for each projection and each way to colour it.

    Parameters
    ----------
    embedding
        [points, size].
    groups
        what the colours mean ("emotion"), the groups in order, and each point's group.
    """
    charts = []
    for method, points in project(embedding, seed):
        for title, names, member in groups:
            charts.append(_chart(name, note, method, points, title, names, member))
    return charts


def _chart(
    name: str,
    note: str,
    method: str,
    points: Float64,
    title: str,
    names: Sequence[str],
    member: npt.NDArray[np.str_],
) -> Chart:
    there = [group for group in names if (member == group).any()]
    shown = there if len(there) <= _MOST_GROUPS else there[: _MOST_GROUPS - 1]
    styles = _styles(shown, title)

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(visible=False)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_aspect("equal", adjustable="datalim")
        for group in shown:
            rows = member == group
            colour, marker = styles[group]
            axes.plot(
                *points[rows].T,
                marker=marker,
                color=colour,
                linestyle="none",
                markersize=3.4,
                markeredgewidth=0,
                alpha=0.75,
                label=group,
            )
        rest = ~np.isin(member, shown)
        if rest.any():
            axes.plot(*points[rest].T, ".", color=SERIES[6], markersize=3, label="others")
        figure.legend(
            loc="outside lower center",
            ncols=4,
            markerscale=1.7,
            handletextpad=0.2,
            columnspacing=1.0,
            fontsize=7.5,
        )

    rows = -(-len(shown) // 4)
    return draw(
        slug(name, method.partition(" ")[0], title),
        f"{method} by {title}",
        note,
        plot,
        height=3.6 + 0.19 * rows,
        source=note.partition(":")[0],
    )


def _styles(groups: Sequence[str], title: str) -> dict[str, tuple[str, str]]:
    if title == "emotion":
        colours = label_colours(groups)
        return {g: (colours[g], MARKERS[i % len(MARKERS)]) for i, g in enumerate(groups)}
    hues = len(SERIES) - 1
    return {g: (SERIES[i % hues], MARKERS[(i + i // hues) % 9]) for i, g in enumerate(groups)}
