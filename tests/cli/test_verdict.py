from __future__ import annotations

import pytest

from equipoise.cli.verdict import fused_sentence, own_sentence, starvation, verdict


@pytest.mark.parametrize(
    ("ours", "plain", "parts"),
    [
        # Means .5 and .5: nothing.
        ([0.4, 0.6, 0.5], [0.5, 0.5, 0.5], ["+0.000 (within the spread of 0.100)", "did not help the fusion here"]),
        # Six seeds, all lower: 2 of 64 sign patterns are as extreme.
        ([0.40, 0.41, 0.42, 0.40, 0.41, 0.42], [0.50, 0.51, 0.52, 0.50, 0.51, 0.52],
         ["-0.100 (beyond the spread of 0.009)", "p = 0.03", ": lower."]),
        # Three seeds, all lower: 2 of 8.
        ([0.40, 0.41, 0.42], [0.50, 0.51, 0.52],
         ["p = 0.25", "(3 seeds can't go below 0.25)", ": lower, though this many seeds are no proof."]),
        ([0.60, 0.61, 0.62], [0.50, 0.51, 0.52], ["+0.100", "higher: balancing hurt the fusion here"]),
        ([0.4], [0.5], ["-0.100", "One seed says nothing about spread"]),
    ],
)  # fmt: skip
def test_the_fused_sentence_claims_what_the_numbers_do(ours: list[float], plain: list[float], parts: list[str]) -> None:
    sentence = fused_sentence("X", ours, plain)
    for part in parts:
        assert part in sentence


def test_own_figures_are_compared_one_by_one() -> None:
    sentence = own_sentence("X", {"a": [0.5, 0.7], "b": [0.2, 0.2]}, {"a": [0.5, 0.5], "b": [0.1, 0.1]}, "corr")
    assert sentence == (
        "X against plain, own corr: a +0.100 (within the spread of 0.141), b +0.100 (beyond the spread of 0.000)."
    )


def test_starvation_states_both_figures() -> None:
    assert starvation({"a": [0.2, 0.4]}, {"a": [0.5, 0.6]}, "corr") == (
        "Inside the plain model, own corr: a 0.300 (0.550 alone)."
    )


def test_verdict_reads_test_files() -> None:
    def result(mae: float, own: float) -> dict[str, object]:
        return {"metrics": {"mae": mae, "corr": own}, "modalities": {"a": {"corr": own}}}

    results = {
        "plain": [result(0.5, 0.1), result(0.5, 0.1)],
        "balanced": [result(0.5, 0.2), result(0.5, 0.2)],
        "multi-loss": [result(0.7, 0.4), result(0.7, 0.4)],
        "a-alone": [result(0.9, 0.6), result(0.9, 0.6)],
    }
    lines = verdict(results, "X", ["a"], "corr")
    assert lines[0].endswith("a 0.100 (0.600 alone).")
    assert "did not help the fusion here" in lines[1]
    assert "a +0.100" in lines[2]
    assert "a +0.300" in lines[3]
    assert lines[3].endswith("Its fused mae: +0.200 (beyond the spread of 0.000).")
