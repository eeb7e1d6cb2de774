"""A page as data, and its one self-contained HTML file.

Text is escaped by the template; only a chart's SVG, which `trainer.plots.style` has made, goes in
as it is. The page loads nothing: style and figures are inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from trainer.errors import TrainerError
from trainer.plots.style import Chart, css_colours


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell: text, a smaller text after it, and a mark as a pill."""

    text: str
    small: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True, slots=True)
class Notice:
    """A paragraph that stands out: something is missing, or must not be misread."""

    text: str
    tone: Literal["missing", "warning"] = "missing"
    kind: ClassVar[str] = "notice"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; `words` is how many columns at the left hold words, the others figures."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""
    words: int = 1
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class Figures:
    """Charts side by side."""

    charts: Sequence[Chart]
    kind: ClassVar[str] = "figures"


@dataclass(frozen=True, slots=True)
class Code:
    """Text as it is, in a fixed-width font."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True, slots=True)
class Tiles:
    """The most important figures: what, the figure, and a note."""

    tiles: Sequence[tuple[str, str, str]]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True, slots=True)
class Fold:
    """Blocks behind a title that opens them."""

    title: str
    blocks: Sequence[Block]
    mark: str = ""
    is_open: bool = False
    kind: ClassVar[str] = "fold"


Block = Text | Heading | Notice | Table | Figures | Code | Tiles | Fold


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with an anchor, and what is under it."""

    anchor: str
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page."""

    title: str
    kicker: str
    lead: str
    sections: Sequence[Section]

    def charts(self) -> list[Chart]:
        """Every chart, in the order of the page."""
        return [c for section in self.sections for c in _charts(section.blocks)]


def _charts(blocks: Iterable[Block]) -> Iterable[Chart]:
    for block in blocks:
        if isinstance(block, Figures):
            yield from block.charts
        elif isinstance(block, Fold):
            yield from _charts(block.blocks)


def render(page: Page) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("trainer.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    light, dark = css_colours()
    template = environment.get_template("page.html")
    return template.render(page=page, light=light, dark=dark)


def write_page(page: Page, folder: Path, name: str) -> Path:
    """Write the page, and its charts as PNG under `figures/`; charts no longer in it are removed.

    Raises
    ------
    TrainerError
        the folder cannot be written, or the disk is full; a page that was there stays.
    """
    path = folder / name
    figures = folder / "figures"
    part = path.with_suffix(".part")
    charts = page.charts()
    names = [chart.name for chart in charts]
    if len(set(names)) != len(names):
        raise ValueError(f"two charts have the same name: {sorted(names)}")
    try:
        figures.mkdir(parents=True, exist_ok=True)
        for chart in charts:
            (figures / f"{chart.name}.png").write_bytes(chart.png)
        part.write_text(render(page), "utf-8")
        part.replace(path)
        for old in figures.glob("*.png"):
            if old.stem not in names:
                old.unlink()
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TrainerError(f"{path} cannot be written: {error.strerror}.") from None
    return path
