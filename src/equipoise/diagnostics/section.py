"""What a table of an audit is, and how its cells are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.diagnostics.wording import figure, gap, percent

Content = Mapping[str, Any]
NOTHING = "–"


@dataclass(frozen=True)
class Point:
    """A figure of a picture, with its interval."""

    label: str
    value: float
    low: float
    high: float
    shown: str


@dataclass(frozen=True)
class Picture:
    """Points with intervals along one axis.

    Attributes:
        title: what the axis is.
        points: from top to bottom.
        mark: a value to draw a line at: nothing, or chance.
        marked: what the line is.
        scale: what the axis's numbers are multiplied by where they are written: 100 for percent and points.
    """

    title: str
    points: tuple[Point, ...]
    mark: float
    marked: str
    scale: int = 1


@dataclass(frozen=True)
class Curve:
    """Values ``(x, y)`` in the order of x, and the last of them in words."""

    label: str
    points: tuple[tuple[float, float], ...]
    shown: str


@dataclass(frozen=True)
class Curves:
    """Curves over one axis.

    Attributes:
        title: what the values are.
        across: what the axis is.
        lines: one or more.
        mark: a value to draw a line at; None for none.
        marked: what the line is.
        scale: as of `Picture`.
    """

    title: str
    across: str
    lines: tuple[Curve, ...]
    mark: float | None = None
    marked: str = ""
    scale: int = 1


@dataclass(frozen=True)
class Panel:
    """Samples in the plane with the number of each one's group, and a figure in words."""

    title: str
    points: tuple[tuple[float, float], ...]
    groups: tuple[int, ...]
    shown: str


@dataclass(frozen=True)
class Scatter:
    """Panels side by side, and the names of the groups, the same in all of them."""

    title: str
    panels: tuple[Panel, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A table with what its numbers mean, a picture of it where that helps, and what else is to be seen."""

    title: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    picture: Picture | None = None
    charts: tuple[Curves | Scatter, ...] = ()


def point(metric: str, label: str, each: Mapping[str, Any], shown: Callable[[str, float], str] = figure) -> Point:
    """A point, its figure written as a level or a difference."""
    return Point(label, each["value"], each["low"], each["high"], shown(metric, each["value"]))


def gap_of(metric: str, each: Mapping[str, Any]) -> str:
    """A difference with its interval."""
    return f"{gap(metric, each['value'])} [{gap(metric, each['low'])}, {gap(metric, each['high'])}]"


def level_of(metric: str, each: Mapping[str, Any] | None) -> str:
    """A score with its interval, or a dash."""
    if each is None or each["value"] is None:
        return NOTHING
    low, high = (figure(metric, each[end]).removesuffix(" %") for end in ("low", "high"))
    return f"{figure(metric, each['value'])} [{low}, {high}]"


def bracketed(each: Mapping[str, Any] | None, key: str) -> str:
    """One figure with its interval, or a dash."""
    if each is None or each[key] is None:
        return NOTHING
    return f"{each[key]:.2f} [{number(each['low'], 2)}, {number(each['high'], 2)}]"


def figure_of(metric: str, value: float | None) -> str:
    """A score, or a dash."""
    return NOTHING if value is None else figure(metric, value)


def number(value: float | None, digits: int) -> str:
    """A number, or a dash."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def share_of(value: float | None) -> str:
    """A share in percent, or a dash."""
    return NOTHING if value is None else f"{percent(value)}"


def p_of(value: float | None) -> str:
    """A p, or a dash."""
    return NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def columns_are_numbers(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether a column is set to the right: it holds figures."""
    cells = [row[column] for row in rows if row[column] not in ("", NOTHING)]
    return bool(cells) and all(cell[0] in "-<0123456789" for cell in cells)
