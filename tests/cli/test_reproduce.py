from __future__ import annotations

import json
from pathlib import Path

import pytest

from equipoise.cli.main import main
from equipoise.cli.reproduced import result_table
from equipoise.experiments.figures import Figure
from equipoise.experiments.reproduction import load, names


def test_the_list_counts_runs_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == names()
    assert rows["ags-smoe.table3"]["runs a seed"] == 2 * 10
    assert rows["ags-smoe.table3"]["published figures"] == 2 * 10 * 7
    assert rows["glomo.table5"]["published figures"] == 5 * 2
    assert rows["cpsl.ablations"]["published figures"] == 0


def test_without_data_it_says_what_to_get(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "ags-smoe.table2"]) == 0
    said = capsys.readouterr().out
    assert "SHA-256: c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f" in said
    assert "equipoise data import unaligned_39.pkl --to DIR/ch-sims" in said
    assert "TGMN: the model is not in equipoise." in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["agm.tabel1"], "Unknown reproduction: `agm.tabel1`. Did you mean `agm.table1`?"),
        (
            ["agm.table1", "--scale", "tiny", "--data", "x"],
            "`--scale tiny` runs on generated data. Leave out",
        ),
        (["agm.table1", "--data", "nowhere"], "agm.table1 found no dataset at nowhere/av-mnist or "),
        (["agm.table1", "--scale", "tiny", "--jobs", "0"], "Parameter `--jobs` should be 1 or more. Found 0."),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_table_runs_at_the_tiny_scale_and_is_read_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "ags-smoe.table7", "--scale", "tiny", "--on", "mosi", "--rows", "end epoch 2", "--jobs", "1"]
    words += ["--out", str(tmp_path), "--model.layers", "1"]
    assert main([*words, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    mae = next(each for each in first["figures"] if each["metric"] == "mae")
    assert (mae["published"], mae["row"], mae["honest"]["seeds"]) == (0.696, "end epoch 2", 1)
    assert mae["difference"] is None  # generated data differ from the corpus in more than the method
    assert first["marks"] == {"mosi": "[synthetic data]"}
    (result,) = (tmp_path / "done").glob("*.json")
    before = result.stat().st_mtime_ns
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"] == first["figures"]
    assert result.stat().st_mtime_ns == before
    assert (tmp_path / "figures.csv").read_text().splitlines()[0].startswith("dataset,row,column,metric,published,ours")
    assert main(["reproduce", "ags-smoe.table7", *words[2:], "--dry-run"]) == 0
    assert "1 cells, 0 to run" in capsys.readouterr().out


def test_a_row_has_a_line_for_each_kind_of_figure() -> None:
    table = load("agm.table1")
    figures = [
        Figure("av-mnist-reduced", "AGM (late fusion)", "Acc", "accuracy", 72.14, (90.0, 92.0), (93.0, 93.0)),
        Figure("av-mnist-reduced", "AGM (late fusion)", "d_a", "strength/audio", 0.6787),
    ]
    found = result_table(table, figures, {"here": "why"}, {"av-mnist-reduced": "[splits leak]"}, tiny=False)
    assert found.columns == ("dataset", "row", "figure", "Acc", "d_a")
    assert [row[2] for row in found.rows] == ["published", "ours", "difference", "best on test"]
    assert [row[3] if isinstance(row[3], float) else row[3].mean for row in found.rows] == pytest.approx(  # type: ignore[union-attr]
        [72.14, 91.0, 18.86, 93.0]
    )
    assert "av-mnist-reduced is a counterpart: the published figures beside it are of av-mnist." in found.notes
    assert "Failed: here: why" in found.notes
    assert [row[0] for row in found.rows] == ["av-mnist-reduced"] + 3 * ["av-mnist-reduced [splits leak]"]
