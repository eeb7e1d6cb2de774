"""Line charts as one SVG file that needs nothing else: panels side by side."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 360, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 46, 46
_HEADER, _NOTE_LINE = 34, 16
# Width of a character of the note, generously, since the font is the reader's.
_NOTE_CHARACTER = 6.3
_COLOURS = ("#1b6ca8", "#c8452c", "#5a8f29", "#7a4fa3", "#b07d12", "#4a4a4a")
_STYLE = (
    "text{font-family:system-ui,'DejaVu Sans',Helvetica,Arial,sans-serif;fill:#222}"
    ".title{font-size:15px;font-weight:600}.panel{font-size:13px;font-weight:600}"
    ".tick{font-size:11px;fill:#555}.note{font-size:11px;fill:#555}"
    ".grid{stroke:#e3e3e3;stroke-width:1}.axis{stroke:#888;stroke-width:1}"
    ".bound{stroke:#888;stroke-width:1;stroke-dasharray:5 4}"
)


@dataclass(frozen=True)
class Series:
    """A named line through points; a point without a value is left out."""

    name: str
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes
    ----------
    title, x_label
        With units.
    log_x, log_y
        Logarithmic axes; values must then be positive.
    bound
        A dashed line at this value.
    """

    title: str
    x_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    bound: float | None = None


@dataclass(frozen=True)
class Axis:
    """Maps values to ``[0, 1]``."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Where on the axis."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(values: Sequence[float], most_ticks: int = 6) -> Axis:
    """From zero (or the least value below it) to above the greatest, with round steps."""
    low, high = min(0.0, *values), max(0.0, *values)
    # Nothing that is drawn differs by less; so little has no logarithm, or no tenth.
    if high - low < 1e-9:
        high = low + 1.0
    rough = (high - low) / (most_ticks - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, False, tuple(n * step for n in range(first, last + 1)))


def log_axis(values: Sequence[float]) -> Axis:
    """From the decade step at or below the least value to that at or above the greatest."""
    steps = [
        factor * 10.0**power
        for power in range(
            math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1
        )
        for factor in (1, 2, 5)
    ]
    low = max(step for step in steps if step <= min(values) * 1.0001)
    above = [step for step in steps if step >= max(values) * 0.9999 and step > low]
    high = min(above) if above else 2 * low
    within = [step for step in steps if low <= step <= high]
    if len(within) > 8:
        within = [step for step in within if math.isclose(math.log10(step) % 1, 0, abs_tol=1e-9)]
    return Axis(low, high, True, tuple(within))


def draw(title: str, panels: Sequence[Panel], note: str) -> str:
    """The SVG text: `title` above, `note` (what it was measured on) below the panels."""
    width = _WIDTH * len(panels)
    # No SVG reader breaks lines by itself.
    notes = textwrap.wrap(note, round((width - _LEFT) / _NOTE_CHARACTER))
    height = _HEADER + _HEIGHT + _NOTE_LINE * len(notes) + _RIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="{_LEFT}" y="24">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        lines.append(f'<g transform="translate({number * _WIDTH},{_HEADER})">')
        lines += _panel(panel)
        lines.append("</g>")
    for number, text in enumerate(notes):
        y = _HEADER + _HEIGHT + _NOTE_LINE * (number + 0.5)
        lines.append(f'<text class="note" x="{_LEFT}" y="{y}">{escape(text)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel) -> list[str]:
    points = [(x, y) for series in panel.series for x, y in series.points if y is not None]
    lines = [f'<text class="panel" x="{_LEFT}" y="14">{escape(panel.title)}</text>']
    if not points:
        return [*lines, f'<text class="tick" x="{_LEFT}" y="{_HEIGHT / 2}">nothing measured</text>']
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if panel.bound is not None:
        ys.append(panel.bound)
    across = log_axis(xs) if panel.log_x else linear_axis(xs)
    up = log_axis(ys) if panel.log_y else linear_axis(ys)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place_x(value: float) -> float:
        return round(_LEFT + across.place(value) * (right - _LEFT), 1)

    def place_y(value: float) -> float:
        return round(bottom - up.place(value) * (bottom - _TOP), 1)

    for tick in up.ticks:
        y = place_y(tick)
        lines.append(f'<path class="grid" d="M{_LEFT} {y}H{right}"/>')
        lines.append(
            f'<text class="tick" text-anchor="end" x="{_LEFT - 6}" y="{y + 4}">{tick:g}</text>'
        )
    for tick in across.ticks:
        x = place_x(tick)
        lines.append(f'<path class="grid" d="M{x} {_TOP}V{bottom}"/>')
        lines.append(
            f'<text class="tick" text-anchor="middle" x="{x}" y="{bottom + 15}">{tick:g}</text>'
        )
    lines.append(f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    lines.append(
        f'<text class="tick" text-anchor="middle" x="{(_LEFT + right) / 2}"'
        f' y="{bottom + 32}">{escape(panel.x_label)}</text>'
    )
    if panel.bound is not None:
        lines.append(f'<path class="bound" d="M{_LEFT} {place_y(panel.bound)}H{right}"/>')
    at = float(_LEFT)
    for number, series in enumerate(panel.series):
        colour = _COLOURS[number % len(_COLOURS)]
        drawn = [(place_x(x), place_y(y)) for x, y in series.points if y is not None]
        path = " ".join(f"{x},{y}" for x, y in drawn)
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        lines += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>' for x, y in drawn]
        if len(panel.series) > 1:
            lines.append(f'<circle cx="{at + 4:.0f}" cy="28" r="4" fill="{colour}"/>')
            lines.append(
                f'<text class="tick" x="{at + 12:.0f}" y="32">{escape(series.name)}</text>'
            )
            at += 26 + 6.5 * len(series.name)
    return lines
