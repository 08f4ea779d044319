"""Samples in the plane, a panel for each representation, as SVG that takes its colours from the page."""

from __future__ import annotations

from html import escape

from equipoise.diagnostics.page_picture import LETTER, WIDTH
from equipoise.diagnostics.section import Scatter

ACROSS, GAP, HEAD, TOP, ENTRY = 3, 8, 26, 20, 15
COLOURS = 8
OTHER = "var(--line)"


def draw_scatter(scatter: Scatter, name: str) -> str:
    """The panels. Groups beyond the eighth share one pale colour: more can't be told apart."""
    side = (WIDTH - GAP * (ACROSS - 1)) / ACROSS
    rows = -(-len(scatter.panels) // ACROSS)
    entries = _entries(scatter.groups)
    bottom = TOP + rows * (side + HEAD)
    height = bottom + 6 + ENTRY * len(entries)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{name}" font-size="11" '
        'fill="currentColor">',
        f'<title id="{name}">{escape(scatter.title)}: {escape(", ".join(p.title for p in scatter.panels))}</title>',
        f'<text x="0" y="12">{escape(scatter.title)}</text>',
    ]
    for number, panel in enumerate(scatter.panels):
        left, top = (number % ACROSS) * (side + GAP), TOP + (number // ACROSS) * (side + HEAD)
        parts.append(
            f'<text x="{left:.1f}" y="{top + 11:.1f}" font-size="10"{_squeezed(panel.title, side)}>'
            f"{escape(panel.title)}</text>"
            f'<text x="{left:.1f}" y="{top + 22:.1f}" font-size="9" fill="var(--soft)">{escape(panel.shown)}</text>'
            f'<path d="M{left:.1f} {top + HEAD:.1f}h{side:.1f}v{side:.1f}h-{side:.1f}z" fill="none" '
            'stroke="var(--line)" stroke-width="0.7"/>'
        )
        for group, places in sorted(_placed(panel.points, panel.groups).items(), reverse=True):
            dots = "".join(
                f"M{left + 4 + x * (side - 8):.1f} {top + HEAD + 4 + (1 - y) * (side - 8):.1f}h0" for x, y in places
            )
            parts.append(f'<path d="{dots}" stroke="{_colour(group)}" stroke-width="2.6" stroke-linecap="round"/>')
    for number, line in enumerate(entries):
        at, y = 0.0, bottom + 6 + ENTRY * number + 8
        for group, label in line:
            parts.append(
                f'<path d="M{at + 4:.1f} {y:.1f}h0" stroke="{_colour(group)}" stroke-width="6" '
                f'stroke-linecap="round"/><text x="{at + 10:.1f}" y="{y + 4:.1f}">{escape(label)}</text>'
            )
            at += 22 + LETTER * len(label)
    return "".join([*parts, "</svg>"])


def _entries(groups: tuple[str, ...]) -> list[list[tuple[int, str]]]:
    """Lines of the legend, as many entries to a line as fit."""
    labels = list(enumerate(groups[:COLOURS]))
    if len(groups) > COLOURS:
        labels.append((COLOURS, f"{len(groups) - COLOURS} more"))
    lines: list[list[tuple[int, str]]] = [[]]
    room = float(WIDTH)
    for number, label in labels:
        wide = 22 + LETTER * len(label)
        if wide > room and lines[-1]:
            lines.append([])
            room = WIDTH
        lines[-1].append((number, label))
        room -= wide
    return lines


def _placed(points: tuple[tuple[float, float], ...], groups: tuple[int, ...]) -> dict[int, list[tuple[float, float]]]:
    """Points by group, scaled into the unit square with one scale for both axes."""
    found: dict[int, list[tuple[float, float]]] = {}
    xs, ys = [x for x, _ in points], [y for _, y in points]
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    for (x, y), group in zip(points, groups, strict=True):
        at = (0.5 + (x - (max(xs) + min(xs)) / 2) / span, 0.5 + (y - (max(ys) + min(ys)) / 2) / span)
        found.setdefault(min(group, COLOURS), []).append(at)
    return found


def _colour(group: int) -> str:
    return f"var(--k{group})" if group < COLOURS else OTHER


def _squeezed(label: str, side: float) -> str:
    return f' textLength="{side:.0f}" lengthAdjust="spacingAndGlyphs"' if len(label) * LETTER * 0.9 > side else ""
