"""What every picture shares: colors, style, legend, files.

Colors are Okabe and Ito's (2008), which readers with any of the common color blindnesses tell apart; curves differ by
dashes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "legend.fontsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "equipoise",
}


def style() -> AbstractContextManager[None]:
    """Matplotlib's settings for the pictures made inside."""
    from matplotlib import rc_context

    return rc_context(STYLE)


def legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend below all panels, each label once."""
    entries: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=min(4, len(entries)),
            frameon=False,
            handlelength=2.8,
        )


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Write a picture as SVG and as PNG; both paths."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    svg, png = target.with_suffix(".svg"), target.with_suffix(".png")
    figure.savefig(svg, metadata={"Date": None})
    figure.savefig(png, dpi=150)
    return [svg, png]
