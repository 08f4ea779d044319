"""Curves over a rate, as SVG that takes its colours from the page."""

from __future__ import annotations

from html import escape

from equipoise.diagnostics.page_picture import WIDTH, ticks
from equipoise.diagnostics.section import Curves

LEFT, RIGHT, TOP, HEIGHT, BOTTOM, ENTRY = 44, 12, 24, 150, 34, 15
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")


def draw_curves(curves: Curves, name: str) -> str:
    """The curves. Dashes and colours tell them apart, and each has its entry below, with its last figure."""
    across = [x for line in curves.lines for x, _ in line.points]
    values = [y for line in curves.lines for _, y in line.points] + ([] if curves.mark is None else [curves.mark])
    (left, right), (low, high) = _span(across), _span(values)
    room = (high - low) * 0.06
    low, high = low - room, high + room
    bottom = TOP + HEIGHT

    def x(value: float) -> float:
        return LEFT + (value - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * HEIGHT

    height = bottom + BOTTOM + ENTRY * len(curves.lines)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}" font-size="11" fill="currentColor">',
        f'<title id="{name}">{escape(curves.title)}: {escape(_spoken(curves))}</title>',
        f'<text x="{LEFT}" y="13">{escape(curves.title)}</text>',
    ]
    for tick in ticks(low, high):
        parts.append(
            f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="var(--line)" stroke-width="0.7"/>'
            f'<text x="{LEFT - 5}" y="{y(tick) + 3.5:.1f}" text-anchor="end" fill="var(--soft)" font-size="10">'
            f"{_number(tick * curves.scale)}</text>"
        )
    for tick in ticks(left, right):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{bottom + 13}" text-anchor="middle" fill="var(--soft)" font-size="10">'
            f"{_number(tick)}</text>"
        )
    if curves.mark is not None:
        parts.append(
            f'<path d="M{LEFT} {y(curves.mark):.1f}H{WIDTH - RIGHT}" stroke="var(--mark)" stroke-width="1.2" '
            f'stroke-dasharray="4 3"/><text x="{WIDTH - RIGHT}" y="{y(curves.mark) - 3:.1f}" text-anchor="end" '
            f'fill="var(--mark)" font-size="10">{escape(curves.marked)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{bottom + 26}" text-anchor="middle" fill="var(--soft)" font-size="10">'
        f"{escape(curves.across)}</text>"
    )
    for number, line in enumerate(curves.lines):
        look = f'fill="none" stroke="var(--k{number % 8})" stroke-width="1.8"' + _dash(number)
        way = "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in line.points)
        entry = bottom + BOTTOM + ENTRY * number + 8
        parts.append(
            f'<path d="M{way}" {look}/><path d="M{LEFT} {entry}h26" {look}/>'
            f'<text x="{LEFT + 32}" y="{entry + 4}">{escape(line.label)}</text>'
            f'<text x="{WIDTH - RIGHT}" y="{entry + 4}" text-anchor="end" fill="var(--soft)">'
            f"{escape(line.shown)}</text>"
        )
    return "".join([*parts, "</svg>"])


def _span(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _dash(number: int) -> str:
    dash = DASHES[number % len(DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _spoken(curves: Curves) -> str:
    return "; ".join(f"{line.label} {line.shown}" for line in curves.lines)
