from __future__ import annotations

import pytest

from equipoise.metrics import implausible


@pytest.mark.parametrize("name", ["mosei", "CMU-MOSEI", "cmu_mosei", "CMUMOSEI", "mosei_aligned_50", "data/mosei"])
def test_mosei_acc7_above_60_asks_for_a_leakage_check(name: str) -> None:
    messages = implausible({"acc7": 0.601, "mae": 0.52, "acc2_pn": 0.87}, name)
    assert len(messages) == 1
    assert "`acc7 = 0.601`" in messages[0]
    assert "leakage" in messages[0]


@pytest.mark.parametrize(
    ("dataset", "scores"),
    [
        ("mosi", {"mae": 0.551, "acc2_nn": 0.86, "acc2_pn": 0.8931, "acc7": 0.50}),
        ("mosei", {"mae": 0.517, "acc2_nn": 0.8534, "acc2_pn": 0.8652, "acc7": 0.60}),
        ("ch-sims", {"mae": 0.353}),
    ],
)
def test_best_published_results_pass(dataset: str, scores: dict[str, float]) -> None:
    assert implausible(scores, dataset) == []


def test_each_implausible_number_has_its_message() -> None:
    messages = implausible({"mae": 0.1, "acc7": 0.9, "corr": 0.99, "acc2_nn": 0.99, "acc2_pn": 0.99}, "mosi")
    assert [message.split("`")[1].split()[0] for message in messages] == ["mae", "acc7", "acc2_nn", "acc2_pn"]
    assert "below 0.48" in messages[0]


@pytest.mark.parametrize("name", ["synthetic", "avletters", "CH-SIMS v2", "simsv2", "mosimodo"])
def test_no_bounds_no_messages(name: str) -> None:
    assert implausible({"mae": 0.0, "acc7": 1.0, "acc2_pn": 1.0}, name) == []


def test_undefined_numbers_are_not_implausible() -> None:
    assert implausible({"mae": float("nan"), "acc2_pn": float("nan")}, "mosi") == []
