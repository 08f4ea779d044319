"""From numbers to sentences, by explicit rules: a run's training, its controls, and damage to its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.diagnostics.estimates import Estimate, plain
from equipoise.diagnostics.verdict import SIGNIFICANT, Finding
from equipoise.diagnostics.wording import difference, p_value, percent

ROBUST_SHARE, FRAGILE_SHARE = 0.9, 0.5
"""Robust, fragile: with modalities missing it keeps at least, at most, so much of its lead over a constant."""
LEADS = 0.75
"""Leads training: the largest gradient in at least so many of the steps."""


def control_findings(metric: str, rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """How the run stands to its controls, whose p are corrected already.

    ``"beaten"``: a control is better. ``"no better than alone"``: one modality trained alone is not worse.
    """
    found = []
    for row in rows:
        lead = row.get("lead")
        if lead is None:
            continue
        made = Estimate(lead["value"], lead["low"], lead["high"], lead["p"])
        if lead["p"] < SIGNIFICANT and made.value < 0:
            sentence = f"{row['name']} does better than this run, by {difference(metric, made.reversed())}"
            found.append(Finding(None, "beaten", f"{sentence} ({p_value(lead['p'])}).", {"lead": plain(made)}))
        elif row["kind"] == "alone" and lead["p"] >= SIGNIFICANT:
            away = (
                f"{difference(metric, made)} better"
                if made.value >= 0
                else f"{difference(metric, made.reversed())} worse"
            )
            sentence = f"The run is {away} than {row['name']}: not distinguishable from it"
            found.append(
                Finding(None, "no better than alone", f"{sentence} ({p_value(lead['p'])}).", {"lead": plain(made)})
            )
    return found


def training_finding(
    steps: int, largest: Mapping[str, float], conflict_rate: float, before: float | None, after: float | None
) -> list[Finding]:
    """``"leads training"``: one encoder had the largest gradient in nearly all steps."""
    name = max(largest, key=largest.__getitem__)
    if not largest[name] >= LEADS:
        return []
    sentence = (
        f"While the model learned, {name} had the largest gradient in {percent(largest[name])} of {steps} recorded "
        f"steps; norms were in conflict in {percent(conflict_rate)}."
    )
    if before is not None and after is not None:
        sentence += f" The largest was {before:.1f} times the others' mean before the balancer, {after:.1f} after it."
    evidence = {"largest": dict(largest), "conflict_rate": conflict_rate, "before": before, "after": after}
    return [Finding(name, "leads training", sentence, evidence)]


def robustness_finding(whole: float, missing: float, constant: float, rate: float) -> list[Finding]:
    """``"robust"`` or ``"fragile"``, by what is kept of the lead over a constant where modalities are missing.

    Args:
        whole: the score with nothing missing; higher is better, as of all three.
        missing: with modalities missing at random.
        constant: of a constant answer.
        rate: at which they are missing.
    """
    if not whole > constant:
        return []
    kept = (missing - constant) / (whole - constant)
    kind = "robust" if kept >= ROBUST_SHARE else "fragile" if kept <= FRAGILE_SHARE else None
    if kind is None:
        return []
    sentence = (
        f"The model is {kind}: with modalities missing in {percent(rate)} of the samples it keeps "
        f"{percent(max(kept, 0))} of its lead over a constant answer."
    )
    evidence = {"whole": whole, "missing": missing, "constant": constant, "kept": kept, "rate": rate}
    return [Finding(None, kind, sentence, evidence)]
