from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from equipoise.diagnostics import verdict, verdict_run
from equipoise.diagnostics._linear import Score
from equipoise.diagnostics.estimates import Estimate, estimate
from equipoise.diagnostics.scores import points
from equipoise.diagnostics.verdict import (
    chance_finding,
    contribution_findings,
    dominance_finding,
    interaction_finding,
    starvation_findings,
)
from equipoise.diagnostics.verdict_run import control_findings, robustness_finding, training_finding


def about(value: float, half: float = 0.02, p: float | None = None, error: float = 0.0) -> Estimate:
    return Estimate(value, value - half, value + half, p, error)


def floor(value: float, p: float) -> Score:
    return Score("accuracy", value, value - 0.05, value + 0.05, 0.1, p, 100, None)


def contributions(
    removal: dict[str, Estimate], alone: float = 0.4, floors: dict[str, Score] | None = None
) -> dict[str, Any]:
    found = contribution_findings(
        "accuracy", removal, alone={name: about(alone) for name in removal}, constant=0.1, samples=200, floors=floors
    )
    return {str(each.modality): each for each in found}


def test_the_sentence_of_the_issue() -> None:
    removal = {"text": about(0.3, p=0.0005), "audio": Estimate(0.004, -0.002, 0.010, 0.41)}
    found = contributions(removal, floors={"audio": floor(0.11, 0.3)})
    assert found["audio"].sentence == (
        "audio adds 0.4 ± 0.6 points to text on these 200 samples: not distinguishable from nothing (p = 0.41). "
        "The data's own floor for audio is near chance (11.0 %, p = 0.30): balancing can't help, better features may."
    )
    assert found["audio"].kind == "noise"
    assert found["text"].sentence == "text adds 30.0 ± 2.0 points to audio on these 200 samples (p = 0.001)."


def test_p_is_corrected_for_the_number_of_modalities() -> None:
    """Of three, .02 alone would pass; beside two larger p it is .06."""
    removal = {"a": about(0.05, p=0.02), "b": about(0.01, p=0.5), "c": about(0.01, p=0.6)}
    found = contributions(removal)
    assert found["a"].kind == "adds nothing"
    assert found["a"].evidence["p_holm"] == pytest.approx(0.06)
    assert "p = 0.060" in found["a"].sentence
    assert contributions({"a": about(0.05, p=0.02), "b": about(0.01, p=0.5)})["a"].kind == "adds"


@pytest.mark.parametrize(
    ("value", "p", "floor_p", "kind"),
    [
        (0.05, 0.0249, None, "adds"),
        (0.05, 0.0251, None, "adds nothing"),
        (-0.05, 0.0249, None, "hurts"),
        (-0.05, 0.0251, None, "adds nothing"),
        (0.05, 0.0249, 0.5, "adds"),
        (0.05, 0.0251, 0.01, "noise"),
        (0.05, 0.0251, 0.0099, "adds nothing"),
        (-0.05, 0.0249, 0.5, "noise"),
    ],
)
def test_contributions_at_their_thresholds(value: float, p: float, floor_p: float | None, kind: str) -> None:
    floors = None if floor_p is None else {"audio": floor(0.2, floor_p)}
    assert contributions({"audio": about(value, p=p), "text": about(0.2, p=1.0)}, floors=floors)["audio"].kind == kind


@pytest.mark.parametrize(
    ("alone", "floor_p", "end"),
    [
        (0.4, 0.001, "what it says, the others say too."),
        (0.11, 0.001, "the model makes nothing of it."),
        (0.4, None, "the others say that too."),
        (0.11, None, "it is no better than a constant."),
    ],
)
def test_what_adds_nothing_is_redundant_or_unused(alone: float, floor_p: float | None, end: str) -> None:
    floors = None if floor_p is None else {"audio": floor(0.3, floor_p)}
    removal = {"audio": about(0.001, p=0.8), "text": about(0.2, p=0.001)}
    assert contributions(removal, alone, floors)["audio"].sentence.endswith(end)


def starved(inside: float, reached: float = 0.53, half: float = 0.01, probe: float | None = None) -> list[Any]:
    readings: dict[str, Any] = {"alone": about(inside, half)}
    readings |= {} if probe is None else {"probe": about(probe, half)}
    return starvation_findings(
        "accuracy",
        {"vision": readings},
        {"vision": ("trained alone", about(reached, half))},
        constant=0.1,
        competition={"vision": {"strength": 0.93}},
        movement={"vision": {"share": 0.02}},
    )


def test_starved_at_its_thresholds() -> None:
    (found,) = starved(0.21)
    assert found.sentence == (
        "vision is starved: trained alone it reaches 53.0 % [52.0, 54.0], inside the model 21.0 % [20.0, 22.0]; its "
        "encoder moved 0.02 of what it moves when trained alone; its competition strength is 0.93. Try AGM or MMPareto."
    )
    half = 0.1 + (0.53 - 0.1) / 2
    assert starved(half - 0.001)
    assert not starved(half + 0.001)
    assert not starved(0.21, half=0.17), "intervals that meet"
    assert starved(0.21, half=0.15)
    assert not starved(-5.0, reached=0.105), "nothing to reach"
    assert not starved(0.21, probe=0.5), "the best reading counts"
    assert starved(0.21, probe=0.3)


def readings(seed: int, inside: float, samples: int) -> tuple[Estimate, Estimate]:
    """R² by sample of two linear predictors of one target, one that reaches ``inside`` of .5 and one .5."""
    random = np.random.default_rng(seed)
    known, rest = random.normal(size=(2, samples))
    target = np.sqrt(0.5) * known + np.sqrt(0.5) * rest
    told = []
    for share in (inside, 1.0):
        seen = np.sqrt(share) * known + np.sqrt(1 - share) * random.normal(size=samples)
        told.append(points("r2", np.sqrt(0.5 * share) * seen, target))
    return estimate(told[0], test=False), estimate(told[1], test=False)


@pytest.mark.parametrize(
    ("inside", "samples", "least", "most"), [(0.1, 80, 95, 100), (1.0, 60, 0, 5), (0.6, 60, 0, 40)]
)
def test_starved_is_found_and_healthy_is_not_called_so(inside: float, samples: int, least: int, most: int) -> None:
    """What keeps a tenth is starved in 95 of 100 sets of samples, what keeps all is not; .6 is near the line of .5."""
    called = unpaired = 0
    for seed in range(100):
        own, best = readings(seed, inside, samples)
        given: dict[str, Any] = {"metric": "r2", "constant": 0.0}
        called += bool(starvation_findings(inside={"a": {"x": own}}, reference={"a": ("y", best)}, **given))
        best = replace(best, points=None)
        unpaired += bool(starvation_findings(inside={"a": {"x": own}}, reference={"a": ("y", best)}, **given))
    assert least <= called <= most
    assert unpaired <= called
    assert unpaired < 80 or inside > 0.1, "pairing finds what intervals side by side do not"


def test_whole_groups_are_resampled_to_call_one_starved() -> None:
    """Ten samples of each of four speakers, one of whom makes all the difference."""
    best = np.repeat([0.9, 0.2, 0.2, 0.2], 10)
    own = np.repeat([0.0, 0.19, 0.19, 0.19], 10)
    given: dict[str, Any] = {"metric": "r2", "constant": 0.0}
    given |= {"inside": {"a": {"x": estimate(own)}}, "reference": {"a": ("y", estimate(best))}}
    (found,) = starvation_findings(**given)
    assert found.evidence["difference"]["value"] == pytest.approx((best - own).mean())
    alike = starvation_findings(**given, groups=[str(i // 10) for i in range(40)])
    assert alike, "each speaker is told better elsewhere"
    own[10:] = 0.21
    given["inside"] = {"a": {"x": estimate(own)}}
    assert starvation_findings(**given)
    assert not starvation_findings(**given, groups=[str(i // 10) for i in range(40)])


def test_dominance_at_its_threshold() -> None:
    assert not dominance_finding({"text": (0.8, 2 / 3, 0.9), "audio": (0.2, 0.1, 0.3)})
    (found,) = dominance_finding({"text": (0.8, 0.667, 0.9), "audio": (0.2, 0.1, 0.3)})
    assert (found.modality, found.kind) == ("text", "dominates")
    assert "80 % of what varies" in found.sentence
    assert not dominance_finding({"text": (math.nan, math.nan, math.nan)})


@pytest.mark.parametrize(
    ("value", "half", "error", "kind"),
    [
        (0.05, 0.02, 0.0, "interactions"),
        (0.05, 0.02, 0.014, "interactions"),
        (0.05, 0.02, 0.016, "interactions unclear"),
        (-0.05, 0.02, 0.0, "interactions hurt"),
        (0.0, 0.0099, 0.0, "additive"),
        (0.0, 0.0101, 0.0, "interactions unclear"),
        (0.005, 0.004, 0.0, "additive"),
    ],
)
def test_interactions_at_their_thresholds(value: float, half: float, error: float, kind: str) -> None:
    (found,) = interaction_finding("accuracy", about(value, half, error=error), about(0.5))
    assert found.kind == kind


def test_a_model_no_better_than_a_constant_is_told_first() -> None:
    assert not chance_finding("r2", about(0.021), 0.0)
    (found,) = chance_finding("r2", about(0.019), 0.0)
    assert found.sentence.startswith("The model scores 0.019 [-0.001, 0.039], no better than the best constant")


def test_robust_and_fragile_at_their_thresholds() -> None:
    kinds = [
        [each.kind for each in robustness_finding(0.6, 0.1 + 0.5 * kept, 0.1, 0.5)]
        for kept in (0.91, 0.89, 0.51, 0.49, -1.0)
    ]
    assert kinds == [["robust"], [], [], ["fragile"], ["fragile"]]
    assert robustness_finding(0.1, 0.1, 0.1, 0.5) == []
    (found,) = robustness_finding(-0.8, -0.82, -1.2, 0.5)
    assert found.sentence == (
        "The model is robust: with modalities missing in 50 % of the samples it keeps 95 % of its lead over a "
        "constant answer."
    )


def test_leading_training_at_its_threshold() -> None:
    assert not training_finding(100, {"text": 0.74, "audio": 0.26}, 0.4, None, None)
    (found,) = training_finding(100, {"text": 0.76, "audio": 0.24}, 0.4, 3.04, 1.2)
    assert found.sentence == (
        "While the model learned, text had the largest gradient in 76 % of 100 recorded steps; norms were in "
        "conflict in 40 %. The largest was 3.0 times the others' mean before the balancer, 1.2 after it."
    )


def test_controls_that_are_better_or_as_good() -> None:
    def row(name: str, kind: str, lead: float, p: float) -> dict[str, Any]:
        return {"name": name, "kind": kind, "lead": {"value": lead, "low": lead - 0.02, "high": lead + 0.02, "p": p}}

    rows = [
        {"name": "the run", "kind": "run", "lead": None},
        row("text alone", "alone", 0.01, 0.2),
        row("audio alone", "alone", 0.3, 0.001),
        row("ensemble", "ensemble", -0.05, 0.004),
        row("unbalanced", "unbalanced", -0.01, 0.3),
    ]
    found = control_findings("accuracy", rows)
    assert [each.kind for each in found] == ["no better than alone", "beaten"]
    assert found[0].sentence == (
        "The run is 1.0 ± 2.0 points better than text alone: not distinguishable from it (p = 0.20)."
    )
    assert found[1].sentence == "ensemble does better than this run, by 5.0 ± 2.0 points (p = 0.004)."
    behind = control_findings("accuracy", [row("text alone", "alone", -0.01, 0.2)])[0]
    assert behind.sentence == (
        "The run is 1.0 ± 2.0 points worse than text alone: not distinguishable from it (p = 0.20)."
    )


def test_thresholds_are_those_of_the_page() -> None:
    """The page on diagnosis prints them."""
    assert (verdict.SIGNIFICANT, verdict.NEAR_CHANCE, verdict.STARVED_SHARE) == (0.05, 0.01, 0.5)
    assert verdict.EQUIVALENT == 0.01
    assert (verdict_run.ROBUST_SHARE, verdict_run.FRAGILE_SHARE, verdict_run.LEADS) == (0.9, 0.5, 0.75)
    assert pytest.approx(2 / 3) == verdict.DOMINANT_SHARE
