"""How every figure looks, and how it becomes text for a page and a PNG for a folder.

Figures are drawn without pyplot, in one fixed style, so that nothing is left open and the same
input gives the same bytes. In the page's SVG each colour of the palette is a CSS variable: the page
has them in a light and a dark shade. Hues: Okabe & Ito, Color Universal Design, 2008, with three
more for a ninth and tenth label; no figure tells things apart by hue alone.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2128", "#636c76", "#dde1e6", "#ffffff"
BLUE, ORANGE, GREEN, SKY = "#0072b2", "#d55e00", "#009e73", "#56b4e9"
PURPLE, AMBER, GREY, YELLOW, BROWN = "#b0569d", "#e69f00", "#7d8590", "#bfa800", "#7a5a3a"

# Light shade, which figures are drawn in, to the dark page's.
SHADES: dict[str, str] = {
    INK: "#e6e9ed",
    MUTED: "#9aa4b0",
    GRID: "#30363d",
    PAPER: "#14171b",
    BLUE: "#4ca3e3",
    ORANGE: "#f08040",
    GREEN: "#2fc397",
    SKY: "#7cc8f4",
    PURPLE: "#d586c3",
    AMBER: "#f2b63c",
    GREY: "#a3acb8",
    YELLOW: "#ecdc48",
    BROWN: "#b8936c",
}

_LABEL_COLOURS = {
    "neutral": GREY,
    "calm": SKY,
    "happy": AMBER,
    "sad": BLUE,
    "angry": ORANGE,
    "fearful": PURPLE,
    "disgust": GREEN,
    "surprised": YELLOW,
    "bored": BROWN,
}
SERIES = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, GREY, YELLOW, BROWN)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1, 1.3)), (0, (5, 1.3, 1, 1.3)))

# Texts of a matrix's cells lie within the axes: they need not be measured for the layout.
CELL: dict[str, Any] = {"ha": "center", "va": "center", "in_layout": False}

# A panel as wide as a phone, in inches: SVG units are points, so text keeps its size there.
WIDTH = 4.4

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "text.color": INK,
    # A label may hold a dollar sign.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.color": MUTED,
    "ytick.labelsize": 8,
}
_PNG_DPI = 170
_TITLE_INCHES = 0.2


@dataclass(frozen=True, slots=True)
class Chart:
    """A finished figure.

    Attributes
    ----------
    name
        stem of its file, unique within a page.
    title, caption
        plain text, not escaped.
    svg
        an `<svg>` element whose ids begin with `name`.
    png
        content of the file.
    """

    name: str
    title: str
    caption: str
    svg: str
    png: bytes
    wide: bool = False


def label_colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour a label: its own if it is one of the usual, else one that no other label has."""
    colours = {label: _LABEL_COLOURS[label] for label in labels if label in _LABEL_COLOURS}
    free = [colour for colour in SERIES if colour not in colours.values()]
    for i, label in enumerate(name for name in labels if name not in colours):
        colours[label] = free[i] if i < len(free) else SERIES[i % len(SERIES)]
    return colours


def slug(*parts: str) -> str:
    """Words joined to a file name: lower-case ASCII letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", "-".join(parts)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "figure"


def percent(value: float) -> str:
    """A share in per cent with one decimal; a dash for what is not a number."""
    return f"{100 * value:.1f}" if value == value else "–"


def draw(
    name: str,
    title: str,
    caption: str,
    plot: Callable[[Figure], None],
    height: float = 3.1,
    width: float = WIDTH,
    source: str = "",
) -> Chart:
    """Draw a figure of so many inches.

    `plot` fills an empty figure. The title is in the PNG only, with `source` below it, which says
    what the figure is of: on the page they are text.
    """
    with matplotlib.style.context(STYLE, after_reset=True), warnings.catch_warnings():
        # The PNG shows a box for a letter that the font lacks; the page's own fonts have it.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        mpl.rcParams["svg.hashsalt"] = name
        figure = Figure(figsize=(width, height))
        plot(figure)
        text = io.StringIO()
        # The canvases' own methods, which have no types: `savefig` would draw everything twice.
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(text, metadata={"Date": None})
        heading = [title, *textwrap.wrap(source, 48)]
        figure.set_size_inches(width, height + _TITLE_INCHES * len(heading))
        figure.set_dpi(_PNG_DPI)
        figure.set_facecolor(PAPER)
        figure.suptitle(
            "\n".join(heading), x=0.01, ha="left", fontsize=9, fontweight="bold", color=INK
        )
        pixels = io.BytesIO()
        canvas = FigureCanvasAgg(figure)
        # Without the version of the library, which would change the file.
        canvas.print_png(pixels, metadata={"Software": None})
        figure.clear()
    svg = _inline(text.getvalue(), name, f"{title}. {caption}")
    return Chart(name, title, caption, svg, pixels.getvalue(), wide=width > WIDTH)


def _inline(svg: str, name: str, description: str) -> str:
    """matplotlib's SVG file as an element of a page."""
    svg = svg[svg.index("<svg") :]
    for part in ("metadata", "style"):
        svg = re.sub(rf"<{part}\b.*?</{part}>", "", svg, flags=re.DOTALL)
    head, _, body = svg.partition(">")
    box = re.search(r'viewBox="([^"]+)"', head)
    assert box is not None
    used = sorted(set(re.findall(r'(?:url\(|href=")#([^")]+)', body)))
    ids = {old: f"{name}-{i}" for i, old in enumerate(used)}
    body = re.sub(r"<[^!>]+>", lambda tag: _adapt(tag[0], ids), body)
    body = re.sub(r">\s*\n\s*<", ">\n<", body)
    empty = re.compile(
        r"<(g|defs)\b[^>]*(?<!/)>\s*</\1>\n?"
        r"|<g\b[^>]*/>\n?"
        r'|<path [^>]*style="fill: none"/>\n?'
    )
    while empty.search(body):
        body = empty.sub("", body)
    body = re.sub(r"<g[^>]*>\s*(?:<use [^>]*/>\s*){3,}</g>", _share_style, body)
    label = html.escape(description, quote=True)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{label}">{body}'.strip()


def _adapt(tag: str, ids: Mapping[str, str]) -> str:
    """Give a tag the page's ids, colour and font variables, and shorter numbers."""
    if tag.startswith("<image"):
        return re.sub(r' id="[^"]*"', "", tag).replace("xlink:href=", "href=")
    tag = re.sub(r' id="([^"]+)"', lambda m: f' id="{ids[m[1]]}"' if m[1] in ids else "", tag)
    tag = re.sub(r'xlink:href="#([^"]+)"', lambda m: f'href="#{ids[m[1]]}"', tag)
    tag = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{ids[m[1]]})", tag)
    tag = re.sub(r"'DejaVu Sans'(, [^;\"]+)?", "var(--font)", tag)
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag).replace(" \n", " ")
    return re.sub(
        r"#[0-9a-f]{6}\b",
        lambda match: f"var({variable(match[0])})" if match[0] in SHADES else match[0],
        tag,
    )


def _share_style(group: re.Match[str]) -> str:
    """Write the style of a group's many points once, if they share it."""
    styles = set(re.findall(r' style="([^"]*)"/>', group[0]))
    if len(styles) != 1:
        return group[0]
    style = styles.pop()
    plain = group[0].replace(f' style="{style}"/>', "/>")
    return re.sub("^<g", f'<g style="{style}"', plain)


def variable(colour: str) -> str:
    """Name of the CSS variable that stands for a colour of the palette."""
    return f"--c-{colour.removeprefix('#')}"


def css_colours(shades: Mapping[str, str] = SHADES) -> tuple[str, str]:
    """Declarations of the palette's variables for a light and for a dark page."""
    light = "".join(f"{variable(colour)}:{colour};" for colour in shades)
    dark = "".join(f"{variable(colour)}:{shade};" for colour, shade in shades.items())
    return light, dark
