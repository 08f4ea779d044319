from __future__ import annotations

from typing import Any

import pytest

from equipoise.report.results import dataset_marks, result_table
from equipoise.report.tables import Spread, to_plain


def result(seed: int, mae: float, **changes: Any) -> dict[str, Any]:
    return {
        "protocol": "honest", "seed": seed, "model": "LateFusion", "balancer": ["ags"], "select": "mae",
        "epoch": 3, "epochs": 8, "metrics": {"corr": None, "mae": mae}, "interval": {"mae": [0.25, 0.75], "corr": None},
        "modalities": {"text": {"mae": mae + 1, "corr": 0.5}}, "own": "head", "warnings": [],
        "dataset": {"name": "mosi", "synthetic": False, "leaks": False, "leakage": []},
        **changes,
    }  # fmt: skip


def test_one_seed_by_hand() -> None:
    assert to_plain(result_table([result(4, 0.5)])) == (
        "LateFusion, ags, on mosi\n"
        "\n"
        "test  fused  95 % interval    text\n"
        "----  -----  --------------  -----\n"
        "mae   0.500  0.250 to 0.750  1.500\n"
        "corr      –  –               0.500\n"
        "\n"
        "Protocol honest: epoch chosen by validation mae (3 of 8). Seed 4.\n"
        "Columns text: what each modality says by its own head.\n"
    )


def test_several_seeds_are_means_with_deviations_and_no_interval() -> None:
    table = result_table([result(0, 1.0), result(1, 2.0), result(2, 3.0)])
    assert table.columns == ("test", "fused", "text")
    assert table.rows[0] == ("mae", Spread(2.0, 1.0, 3), Spread(3.0, 1.0, 3))
    assert table.rows[1][1] is None  # undefined in one seed: no mean over the others
    assert "over seeds 0, 1, 2" in table.notes[0]


def test_paper_shows_both_figures_and_the_gap() -> None:
    selected = {"epoch": 5, "metrics": {"mae": 0.4}, "modalities": {}, "gap": {"mae": -0.1}}
    table = result_table([result(0, 0.5, protocol="paper", test_selected=selected)])
    shown = dict(zip(table.columns, table.rows[0], strict=True))
    assert shown["fused"] == Spread(0.5, None, 1)
    assert shown["test-selected"] == Spread(0.4, None, 1)
    assert shown["gap"] == Spread(-0.1, None, 1)
    assert any("too good" in note for note in table.notes)


@pytest.mark.parametrize(
    ("dataset", "marks"),
    [
        ({"synthetic": True}, ["synthetic data"]),
        ({"leaks": True, "synthetic": True}, ["synthetic data", "splits leak"]),
        ({"leaks": False, "leakage": ["one duplicate text"]}, []),
    ],
)
def test_marks(dataset: dict[str, Any], marks: list[str]) -> None:
    assert dataset_marks(dataset) == marks


def test_a_leak_and_a_warning_stand_below_and_in_the_title() -> None:
    leaking = {"name": "mosi", "synthetic": False, "leaks": True, "leakage": ["speaker A in train and test"]}
    table = result_table([result(0, 0.1, dataset=leaking, warnings=["too good"])])
    assert table.title == "LateFusion, ags, on mosi [splits leak]"
    assert table.notes[2:] == ("Leakage: speaker A in train and test", "Warning: too good")


def test_plain_without_heads_and_dropped_modalities() -> None:
    table = result_table([result(0, 0.1, balancer=[], own="kept", modalities_used=["text"], split="valid")])
    assert table.title.startswith("LateFusion, no balancer (plain)")
    assert table.columns[0] == "valid"
    assert "Columns text: what each modality says by the fusion with the others muted." in table.notes
    assert "Modalities used: text." in table.notes
