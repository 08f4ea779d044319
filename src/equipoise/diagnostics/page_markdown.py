"""An audit as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise.diagnostics.section import Section, columns_are_numbers


def to_markdown(title: str, verdict: Sequence[str], sections: Sequence[Section]) -> str:
    """Title, verdict and tables."""
    lines = [f"# {title}", "", "## Verdict", "", *(f"- {_cell(sentence)}" for sentence in verdict), ""]
    for section in sections:
        right = [columns_are_numbers(section.rows, i) for i in range(len(section.columns))]
        lines += [f"## {section.title}", "", section.text, ""]
        lines.append(_row(section.columns))
        lines.append(_row(["---:" if each else "---" for each in right]))
        lines += [_row(row) for row in section.rows]
        lines.append("")
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
