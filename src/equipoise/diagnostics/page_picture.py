"""Points with intervals along an axis, as SVG that takes its colours from the page."""

from __future__ import annotations

import math
from html import escape

from equipoise.diagnostics.section import Picture

# In units that are about pixels on a phone; a wide page scales them up a little.
WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 360, 128, 46, 20, 26, 30
LETTER = 5.9  # of a label, at size 11


def draw(picture: Picture, name: str) -> str:
    """The picture. Every point has its label and its figure in words; shapes, not colours, tell them apart."""
    low = min([picture.mark, *(each.low for each in picture.points)])
    high = max([picture.mark, *(each.high for each in picture.points)])
    room = (high - low) * 0.05 or 1.0
    low, high = low - room, high + room
    height = TOP + ROW * len(picture.points) + BOTTOM
    bottom = height - BOTTOM

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}" font-size="11" fill="currentColor">',
        f'<title id="{name}">{escape(picture.title)}: {escape(_spoken(picture))}</title>',
    ]
    for tick in ticks(low, high):
        parts.append(
            f'<path d="M{x(tick):.1f} {TOP - 4}V{bottom}" stroke="var(--line)" stroke-width="0.7"/>'
            f'<text x="{x(tick):.1f}" y="{bottom + 13}" text-anchor="middle" fill="var(--soft)" font-size="10">'
            f"{_tick(tick * picture.scale)}</text>"
        )
    mark = min(max(x(picture.mark), LEFT + 20), WIDTH - RIGHT - 20)
    parts.append(
        f'<path d="M{x(picture.mark):.1f} {TOP - 8}V{bottom}" stroke="var(--mark)" stroke-width="1.4" '
        f'stroke-dasharray="4 3"/><text x="{mark:.1f}" y="{TOP - 12}" text-anchor="middle" fill="var(--mark)" '
        f'font-size="10">{escape(picture.marked)}</text>'
    )
    for number, each in enumerate(picture.points):
        y = TOP + ROW * (number + 0.5)
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end"{_squeezed(each.label)}>{escape(each.label)}</text>'
            f'<path d="M{x(each.low):.1f} {y:.1f}H{x(each.high):.1f}" stroke="var(--point)" stroke-width="2"/>'
            f'<circle cx="{x(each.value):.1f}" cy="{y:.1f}" r="3.6" fill="var(--point)"/>'
            f'<text x="{WIDTH}" y="{y + 4:.1f}" text-anchor="end">{escape(each.shown)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{height - 3}" text-anchor="middle" fill="var(--soft)" font-size="10">'
        f"{escape(picture.title)}</text></svg>"
    )
    return "".join(parts)


def ticks(low: float, high: float) -> list[float]:
    """A few round values between two.

    >>> ticks(-0.1, 0.62)
    [0.0, 0.2, 0.4, 0.6]
    """
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _spoken(picture: Picture) -> str:
    return "; ".join(f"{each.label} {each.shown}" for each in picture.points)


def _squeezed(label: str) -> str:
    """A label that would not fit is set narrower."""
    return f' textLength="{LEFT - 10}" lengthAdjust="spacingAndGlyphs"' if len(label) * LETTER > LEFT - 10 else ""


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")
