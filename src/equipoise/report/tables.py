"""Tables of figures with their spread: for a terminal, as plain text, Markdown, CSV, LaTeX and JSON records."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over seeds: its mean and its sample standard deviation (`None` for a single seed)."""

    mean: float
    sd: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Marked:
    """A figure with a mark behind it (``"†"``, ``"‡"``), in bold where the format has it."""

    figure: float | Spread
    mark: str = ""
    bold: bool = False


Cell: TypeAlias = "str | int | float | Spread | Marked | None"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under named columns; `notes` are the lines printed below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                expected = len(self.columns)
                raise ValueError(f"Parameter `rows` should hold {expected} cells a row. Found {len(row)}: {row}.")


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation (n − 1) of a figure over seeds.

    Raises:
        ValueError: no values.

    >>> spread([1.0, 2.0, 3.0])
    Spread(mean=2.0, sd=1.0, count=3)
    """
    if not values:
        raise ValueError("Parameter `values` should hold at least one figure. Found none.")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Spread(mean, math.sqrt(variance), len(values))


def cell_text(cell: Cell, digits: int = 3) -> str:
    """One cell as text: floats with `digits` decimals, `–` for what is missing or not a number.

    >>> cell_text(Spread(0.8125, 0.0104, 5))
    '0.812 ± 0.010'
    """
    if cell is None:
        return "–"
    if isinstance(cell, Marked):
        return cell_text(cell.figure, digits) + cell.mark
    if isinstance(cell, Spread):
        mean = _number(cell.mean, digits)
        return mean if cell.sd is None or mean == "–" else f"{mean} ± {_number(cell.sd, digits)}"
    if isinstance(cell, float):
        return _number(cell, digits)
    return str(cell)


def to_plain(table: Table, digits: int = 3) -> str:
    """Aligned columns of plain text: the first column to the left, figures to the right."""
    grid = [list(table.columns), *([cell_text(cell, digits) for cell in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in grid) for i in range(len(table.columns))]
    lines = [table.title, ""]
    for position, row in enumerate(grid):
        padded = (
            text.ljust(width) if i == 0 or _is_text(table, i) else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(padded).rstrip())
        if position == 0:
            lines.append("  ".join("-" * width for width in widths))
    if table.notes:
        lines += ["", *table.notes]
    return "\n".join(lines) + "\n"


def to_markdown(table: Table, digits: int = 3) -> str:
    """A Markdown table under its title, notes as paragraphs."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"

    rule = ["---" if i == 0 or _is_text(table, i) else "---:" for i in range(len(table.columns))]
    lines = [f"**{table.title}**", "", line(table.columns), line(rule)]
    lines += [line([_bold(cell, cell_text(cell, digits), "**{}**") for cell in row]) for row in table.rows]
    for note in table.notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Comma-separated values at full precision; a column with spreads is followed by its `<column>_sd`."""
    spreads = [any(isinstance(_bare(row[i]), Spread) for row in table.rows) for i in range(len(table.columns))]
    header: list[str] = []
    for name, has_sd in zip(table.columns, spreads, strict=True):
        header += [name, f"{name}_sd"] if has_sd else [name]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        values: list[str] = []
        for cell, has_sd in zip(map(_bare, row), spreads, strict=True):
            mean, sd = (cell.mean, cell.sd) if isinstance(cell, Spread) else (cell, None)
            values += [_raw(mean), _raw(sd)] if has_sd else [_raw(mean)]
        writer.writerow(values)
    return out.getvalue()


def to_latex(table: Table, digits: int = 3) -> str:
    r"""A LaTeX `tabular` with booktabs rules (`\usepackage{booktabs}`), notes as comments."""

    def line(cells: Sequence[Cell]) -> str:
        return " & ".join(_bold(cell, _escape(cell_text(cell, digits)), r"\textbf{{{}}}") for cell in cells) + r" \\"

    align = "".join("l" if i == 0 or _is_text(table, i) else "r" for i in range(len(table.columns)))
    lines = [f"% {table.title}", rf"\begin{{tabular}}{{{align}}}", r"\toprule", line(table.columns), r"\midrule"]
    lines += [line(row) for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def to_records(table: Table) -> dict[str, object]:
    """The table as JSON-ready values; a spread becomes `{"mean", "sd", "seeds"}`, a NaN becomes `null`."""

    def value(marked: Cell) -> object:
        cell = _bare(marked)
        if isinstance(cell, Spread):
            return {"mean": _finite(cell.mean), "sd": _finite(cell.sd), "seeds": cell.count}
        return _finite(cell) if isinstance(cell, float) else cell

    rows = [{name: value(cell) for name, cell in zip(table.columns, row, strict=True)} for row in table.rows]
    return {"title": table.title, "rows": rows, "notes": list(table.notes)}


def to_rich(table: Table, digits: int = 3) -> RichTable:
    """The table's body for a rich console; cells are shown as they are, never read as markup."""
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable()
    for i, name in enumerate(table.columns):
        left = i == 0 or _is_text(table, i)
        # On a narrow terminal cells break between words; no word is cut.
        texts = [name, *(cell_text(row[i], digits) for row in table.rows)]
        longest = max((len(word) for text in texts for word in text.split()), default=0)
        shown.add_column(Text(name), justify="left" if left else "right", min_width=longest, overflow="fold")
    for row in table.rows:
        shown.add_row(
            *(
                Text(cell_text(cell, digits), style="bold" if isinstance(cell, Marked) and cell.bold else "")
                for cell in row
            )
        )
    return shown


def _is_text(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows if row[column] is not None]
    return bool(cells) and all(isinstance(cell, str) for cell in cells)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _raw(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    return repr(cell) if isinstance(cell, float) else str(cell)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _bare(cell: Cell) -> str | int | float | Spread | None:
    return cell.figure if isinstance(cell, Marked) else cell


def _bold(cell: Cell, text: str, wrap: str) -> str:
    return wrap.format(text) if isinstance(cell, Marked) and cell.bold else text


_LATEX = {letter: "\\" + letter for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    "§": r"$^{\S}$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


def _escape(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
