"""An audit as one page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from equipoise.diagnostics.page_lines import draw_curves
from equipoise.diagnostics.page_picture import draw
from equipoise.diagnostics.page_scatter import draw_scatter
from equipoise.diagnostics.section import Curves, Section, columns_are_numbers

# Blue and vermilion of Okabe and Ito, which the colour-blind tell apart; lighter where the page is dark.
_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --panel: #f6f8fa;
  --point: #0072b2; --mark: #b34a00; --k0: #0072b2; --k1: #d55e00; --k2: #009e73; --k3: #cc79a7; --k4: #b8860b;
  --k5: #3a9bd9; --k6: #7a4b9d; --k7: #555555; }
@media (prefers-color-scheme: dark) { :root { --paper: #15191e; --ink: #e6e9ec; --soft: #a3adb8; --line: #3a434d;
  --panel: #1d232a; --point: #56b4e9; --mark: #f0a05a; --k0: #56b4e9; --k1: #f0803c; --k2: #2fc79a; --k3: #e29cc5;
  --k4: #e6b800; --k5: #9fd8ff; --k6: #b48be0; --k7: #bbbbbb; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.verdict { background: var(--panel); border-left: .3rem solid var(--point); padding: .2rem 1rem; }
.verdict h2 { margin-top: .6rem; }
.verdict ul { margin: .4rem 0 .8rem; padding-left: 1.2rem; }
.verdict li { margin: .35rem 0; }
.note { color: var(--soft); font-size: .93rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); color: var(--soft); }
tbody th { font-weight: 600; white-space: nowrap; }
.number { text-align: right; }
td.number { white-space: nowrap; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
figure { margin: 1rem 0; }
svg { display: block; width: 100%; max-width: 34rem; height: auto; }
:focus-visible { outline: 2px solid var(--point); }
@media (max-width: 40rem) { th, td { padding-right: .6rem; font-size: .87rem; } td.number { white-space: normal; } }
@media print { :root { --paper: #ffffff; --ink: #000000; --soft: #333333; --line: #999999; --panel: #ffffff;
  --point: #0072b2; --mark: #b34a00; --k0: #0072b2; --k1: #d55e00; --k2: #009e73; --k3: #cc79a7; --k4: #b8860b;
  --k5: #3a9bd9; --k6: #7a4b9d; --k7: #555555; } body { padding: 0; max-width: none; font-size: 10pt; }
  h2, .note { break-after: avoid; } figure, tr { break-inside: avoid; } .table { overflow: visible; }
  th, td { padding-right: .35rem; font-size: 7.5pt; } td.number, tbody th { white-space: normal; }
  svg { max-width: 26rem; } }
"""


def to_html(title: str, verdict: Sequence[str], sections: Sequence[Section]) -> str:
    """The page."""
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in verdict)
    body = "\n".join(_section(section, number) for number, section in enumerate(sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<section class="verdict" aria-labelledby="verdict">
<h2 id="verdict">Verdict</h2>
<ul>{said}</ul>
</section>
{body}
</main>
</body>
</html>
"""


def _section(section: Section, number: int) -> str:
    right = [' class="number"' if columns_are_numbers(section.rows, i) else "" for i in range(len(section.columns))]
    heads = "".join(
        f'<th scope="col"{side}>{escape(name)}</th>' for name, side in zip(section.columns, right, strict=True)
    )
    rows = "".join(_row(row, right) for row in section.rows)
    pictures = [] if section.picture is None else [draw(section.picture, f"picture-{number}")]
    for at, chart in enumerate(section.charts):
        name = f"chart-{number}-{at}"
        pictures.append(draw_curves(chart, name) if isinstance(chart, Curves) else draw_scatter(chart, name))
    picture = "".join(f"\n<figure>{each}</figure>" for each in pictures)
    return f"""<section aria-labelledby="section-{number}">
<h2 id="section-{number}">{escape(section.title)}</h2>
<p class="note">{escape(section.text)}</p>
<div class="table" role="region" aria-labelledby="section-{number}" tabindex="0">
<table><caption>{escape(section.title)}</caption>
<thead><tr>{heads}</tr></thead>
<tbody>{rows}</tbody></table>
</div>{picture}
</section>"""


def _row(row: Sequence[str], right: Sequence[str]) -> str:
    cells = "".join(f"<td{side}>{_cell(cell, bool(side))}</td>" for cell, side in zip(row[1:], right[1:], strict=True))
    return f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>'


def _cell(text: str, is_number: bool) -> str:
    """Of a figure with its interval, a narrow page may break the line between the two, and nowhere else."""
    return escape(" [".join(part.replace(" ", "\u00a0") for part in text.split(" [")) if is_number else text)
