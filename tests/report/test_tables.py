from __future__ import annotations

import csv
import io
import math
import statistics

import pytest

from equipoise.report.tables import (
    Marked,
    Spread,
    Table,
    cell_text,
    spread,
    to_csv,
    to_latex,
    to_markdown,
    to_plain,
    to_records,
    to_rich,
)

TABLE = Table(
    title="Two rows",
    columns=("run", "mae", "acc2_pn"),
    rows=(("plain", Spread(0.8125, 0.0104, 3), 0.75), ("a|b & 5%", Spread(1.0, None, 1), math.nan)),
    notes=("synthetic",),
)


@pytest.mark.parametrize("values", [[0.1, 0.4], [3.0, 3.0, 3.0], [1e-3, 2.0, -5.0, 7.25]])
def test_spread_matches_the_standard_library(values: list[float]) -> None:
    found = spread(values)
    assert found.sd is not None
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.sd == pytest.approx(statistics.stdev(values))
    assert found.count == len(values)


def test_spread_of_one_seed_claims_no_deviation() -> None:
    assert spread([0.5]) == Spread(0.5, None, 1)


def test_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one figure"):
        spread([])


@pytest.mark.parametrize(
    ("cell", "digits", "text"),
    [
        (None, 3, "–"),
        ("text", 3, "text"),
        (12, 3, "12"),
        (0.8125, 3, "0.812"),  # exactly between: Python rounds half to even
        (0.8126, 3, "0.813"),
        (2.0, 1, "2.0"),
        (math.nan, 3, "–"),
        (math.inf, 3, "–"),
        (Spread(0.8125, 0.0104, 5), 3, "0.812 ± 0.010"),
        (Spread(0.5, None, 1), 2, "0.50"),
        (Spread(math.nan, math.nan, 5), 3, "–"),
    ],
)
def test_cell_text_values(cell: Spread | float | str | None, digits: int, text: str) -> None:
    assert cell_text(cell, digits) == text


def test_plain_by_hand() -> None:
    assert to_plain(TABLE) == (
        "Two rows\n"
        "\n"
        "run                 mae  acc2_pn\n"
        "--------  -------------  -------\n"
        "plain     0.812 ± 0.010    0.750\n"
        "a|b & 5%          1.000        –\n"
        "\n"
        "synthetic\n"
    )


def test_markdown_by_hand() -> None:
    assert to_markdown(TABLE) == (
        "**Two rows**\n"
        "\n"
        "| run | mae | acc2_pn |\n"
        "| --- | ---: | ---: |\n"
        "| plain | 0.812 ± 0.010 | 0.750 |\n"
        "| a\\|b & 5% | 1.000 | – |\n"
        "\n"
        "synthetic\n"
    )


def test_latex_by_hand() -> None:
    assert to_latex(TABLE) == (
        "% Two rows\n"
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        "run & mae & acc2\\_pn \\\\\n"
        "\\midrule\n"
        "plain & 0.812 $\\pm$ 0.010 & 0.750 \\\\\n"
        "a|b \\& 5\\% & 1.000 & -- \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "% synthetic\n"
    )


def test_csv_round_trips_at_full_precision() -> None:
    third = 1 / 3
    table = Table("t", ("run", "mae"), (("a,b", Spread(third, 1 / 7, 3)), ("c", Spread(2.0, None, 1))))
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    assert rows == [["run", "mae", "mae_sd"], ["a,b", repr(third), repr(1 / 7)], ["c", "2.0", ""]]
    assert float(rows[1][1]) == third


def test_records_hold_no_nan() -> None:
    records = to_records(TABLE)
    assert records == {
        "title": "Two rows",
        "rows": [
            {"run": "plain", "mae": {"mean": 0.8125, "sd": 0.0104, "seeds": 3}, "acc2_pn": 0.75},
            {"run": "a|b & 5%", "mae": {"mean": 1.0, "sd": None, "seeds": 1}, "acc2_pn": None},
        ],
        "notes": ["synthetic"],
    }


def test_rich_shows_names_with_brackets_as_they_are() -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=80)
    console.print(to_rich(Table("t", ("[red]x",), (("[/]",),))))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]x" in shown
    assert "[/]" in shown


def test_rich_on_a_narrow_terminal_cuts_no_word() -> None:
    from rich.console import Console

    names = tuple(f"column {i}" for i in range(6))
    out = io.StringIO()
    Console(file=out, width=70).print(to_rich(Table("t", ("run", *names), (("plain", *[Spread(0.5, 0.125, 3)] * 6),))))
    shown = out.getvalue()
    assert shown.count("0.500") == 6
    assert shown.count("0.125") == 6
    assert shown.count("column") == 6
    assert "plain" in shown


def test_a_short_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"should hold 2 cells a row\. Found 1"):
        Table("t", ("a", "b"), (("x",),))


def test_a_marked_figure_is_bold_where_the_format_has_it_and_bare_where_it_is_data() -> None:
    figure = Marked(Spread(0.5, 0.25, 2), "†‡", bold=True)
    table = Table("t", ("run", "mae"), (("a", figure), ("b", Marked(0.75, "§"))))
    assert to_latex(table, 2).splitlines()[5:7] == [
        r"a & \textbf{0.50 $\pm$ 0.25$^{\dagger}$$^{\ddagger}$} \\",
        r"b & 0.75$^{\S}$ \\",
    ]
    assert to_markdown(table, 2).splitlines()[4:] == ["| a | **0.50 ± 0.25†‡** |", "| b | 0.75§ |"]
    assert to_plain(table, 2).splitlines()[4:] == ["a    0.50 ± 0.25†‡", "b            0.75§"]
    assert to_csv(table) == "run,mae,mae_sd\na,0.5,0.25\nb,0.75,\n"
    assert to_records(table)["rows"] == [
        {"run": "a", "mae": {"mean": 0.5, "sd": 0.25, "seeds": 2}},
        {"run": "b", "mae": 0.75},
    ]


def test_latex_escapes_every_letter_that_tex_takes_for_an_order() -> None:
    text = to_latex(Table("t", (r"a\b~c^d",), (("p < 0.1",),)))
    assert r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d \\" in text
    assert r"p $<$ 0.1 \\" in text
