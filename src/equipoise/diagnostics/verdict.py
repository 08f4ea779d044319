"""From numbers to sentences, by explicit rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from equipoise.diagnostics.estimates import Estimate, plain
from equipoise.diagnostics.wording import Interval, difference, figure, level, p_value, percent
from equipoise.functional.statistics import holm

SIGNIFICANT = 0.05
"""A difference is one where its p, corrected for the number of modalities (Holm), is below this."""
NEAR_CHANCE = 0.01
"""A floor is near chance where its p is this or more: stricter than for differences, since "noise" is said of it."""
STARVED_SHARE = 0.5
"""Starved: inside the model, less than this of what the modality reaches above a constant elsewhere."""
DOMINANT_SHARE = 2 / 3
"""Dominates: the interval of its share of the output's variance is all above this."""
EQUIVALENT = 0.01
"""Additive would do: what interactions give lies within this (one point; .01 of R²), with its whole interval."""
ROBUST_SHARE, FRAGILE_SHARE = 0.9, 0.5
"""Robust, fragile: with modalities missing it keeps at least, at most, so much of its lead over a constant."""
LEADS = 0.75
"""Leads training: the largest gradient in at least so many of the steps."""


class Floor(Interval, Protocol):
    """What a line on pooled features reaches, and how often chance reaches as much."""

    @property
    def p(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Finding:
    """One sentence of a verdict.

    Attributes:
        modality: it is about; None for the model.
        kind: the rule that fired.
        sentence: in plain words, with its numbers.
        evidence: the numbers that the rule looked at.
    """

    modality: str | None
    kind: str
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        found: dict[str, Any] = plain(self)
        return found


def chance_finding(metric: str, score: Interval, constant: float) -> list[Finding]:
    """``"chance"``: the interval of the model's score does not lie above the best constant answer."""
    if score.low > constant:
        return []
    sentence = (
        f"The model scores {level(metric, score)}, no better than the best constant answer "
        f"({figure(metric, constant)}): what follows is about a model that has learned nothing that shows here."
    )
    return [Finding(None, "chance", sentence, {"score": plain(score), "constant": constant})]


def contribution_findings(
    metric: str,
    removal: Mapping[str, Estimate],
    *,
    alone: Mapping[str, Interval],
    constant: float,
    samples: int,
    floors: Mapping[str, Floor] | None = None,
) -> list[Finding]:
    """What each modality adds to the others: one finding a modality.

    - ``"adds"``, ``"hurts"``: removal costs, or gains, with p below `SIGNIFICANT` after Holm's correction.
    - ``"noise"``: it does not add, and the data's own floor for it is near chance.
    - ``"adds nothing"``: it does not add and the floor is above chance, or not known.

    Args:
        metric: of the figures.
        removal: what removing each modality costs, with p as it is before correction.
        alone: the model's score with this modality alone.
        constant: score of the best constant answer.
        samples: how many there are.
        floors: of the data, where they are known.
    """
    names = list(removal)
    corrected = dict(zip(names, holm([_p(removal[name]) for name in names]), strict=True))
    found = []
    for name in names:
        cost, p = removal[name], corrected[name]
        others = " and ".join(other for other in names if other != name)
        floor = (floors or {}).get(name)
        evidence = {"removal": plain(cost), "p_holm": p, "alone": plain(alone[name]), "constant": constant}
        evidence |= {} if floor is None else {"floor": {"value": floor.value, "p": floor.p}}
        real = p < SIGNIFICANT
        if real and cost.value > 0:
            sentence = f"{name} adds {difference(metric, cost)} to {others} on these {samples} samples ({p_value(p)})."
            found.append(Finding(name, "adds", sentence, evidence))
            continue
        if real:
            sentence = (
                f"{name} hurts: without it the model gains {difference(metric, _negative(cost))} on these {samples} "
                f"samples ({p_value(p)})."
            )
        else:
            sentence = (
                f"{name} adds {difference(metric, cost)} to {others} on these {samples} samples: not distinguishable "
                f"from nothing ({p_value(p)})."
            )
        kind = "hurts" if real else "adds nothing"
        if floor is not None and floor.p >= NEAR_CHANCE:
            kind = "noise"
            sentence += (
                f" The data's own floor for {name} is near chance ({figure(metric, floor.value)}, {p_value(floor.p)}): "
                "balancing can't help, better features may."
            )
        elif floor is not None:
            sentence += f" The data's own floor for {name} is {figure(metric, floor.value)}, above chance: "
            spoken = alone[name].low > constant
            sentence += "what it says, the others say too." if spoken else "the model makes nothing of it."
        elif alone[name].low <= constant:
            sentence += " Alone inside the model it is no better than a constant."
        else:
            sentence += f" Alone inside the model it reaches {level(metric, alone[name])}: the others say that too."
        found.append(Finding(name, kind, sentence, evidence))
    return found


def starvation_findings(
    metric: str,
    inside: Mapping[str, Mapping[str, Interval]],
    reference: Mapping[str, tuple[str, Interval]],
    *,
    constant: float,
    competition: Mapping[str, Mapping[str, Any]] | None = None,
    movement: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Finding]:
    """``"starved"``: a modality reaches far more elsewhere than inside the model.

    Of all that is known of the modality inside the model, the best reading counts. It is starved where

    - that reading's interval lies below the interval of the reference, which lies above a constant, and
    - it is less of a lead over the constant than `STARVED_SHARE` of the reference's.

    Args:
        metric: of the figures.
        inside: ``{m: {how it was read: score}}``, such as the model with it alone, or a probe of its representation.
        reference: ``{m: (what it is, score)}``: a model trained on it alone, or the data's own floor.
        constant: score of the best constant answer.
        competition: strengths to name beside it.
        movement: of the encoder, to name beside it.
    """
    found = []
    for name, (what, best) in reference.items():
        how, own = max(inside[name].items(), key=lambda each: each[1].value)
        far = own.value - constant < STARVED_SHARE * (best.value - constant)
        if not (far and own.high < best.low and best.low > constant):
            continue
        sentence = f"{name} is starved: {what} it reaches {level(metric, best)}, inside the model {level(metric, own)}"
        evidence = {"reference": what, "reached": plain(best), "inside": plain(own), "read_by": how}
        moved = (movement or {}).get(name, {}).get("share")
        if moved is not None:
            sentence += f"; its encoder moved {moved:.2f} of what it moves when trained alone"
        strength = (competition or {}).get(name)
        if strength is not None and strength.get("strength") is not None:
            sentence += f"; its competition strength is {strength['strength']:.2f}"
            evidence["competition"] = dict(strength)
        found.append(Finding(name, "starved", f"{sentence}. Try AGM or MMPareto.", evidence))
    return found


def dominance_finding(shares: Mapping[str, tuple[float, float, float]]) -> list[Finding]:
    """``"dominates"``: one share of the output's variance, ``(share, low, high)``, is above the threshold."""
    found = []
    for name, (share, low, high) in shares.items():
        if low > DOMINANT_SHARE:
            sentence = (
                f"{name} dominates: {percent(share)} of what varies in the output comes with it "
                f"(95 % interval {percent(low)} to {percent(high)})."
            )
            found.append(Finding(name, "dominates", sentence, {"share": share, "low": low, "high": high}))
    return found


def interaction_finding(metric: str, gain: Estimate, additive: Interval) -> list[Finding]:
    """What the interactions between modalities give, by EMAP.

    ``"interactions"`` or ``"interactions hurt"`` where the interval, widened by two standard errors of what was drawn,
    is all on one side of 0; ``"additive"`` where it lies within `EQUIVALENT`; else ``"interactions unclear"``.
    """
    low, high = gain.low - 2 * gain.error, gain.high + 2 * gain.error
    evidence = {"gain": plain(gain), "additive": plain(additive)}
    if low >= -EQUIVALENT and high <= EQUIVALENT:
        kind, said = "additive", "an additive model would do"
    elif low > 0:
        kind, said = "interactions", "interactions between modalities matter"
    elif high < 0:
        kind, said = "interactions hurt", "interactions between modalities hurt"
    else:
        kind, said = "interactions unclear", "not distinguishable from nothing"
    whole = Estimate(gain.value, low, high)
    sentence = f"Beyond a sum of what each modality says, the model gains {difference(metric, whole)}: {said}."
    return [Finding(None, kind, sentence, evidence)]


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
        if _p(made) < SIGNIFICANT and made.value < 0:
            sentence = f"{row['name']} does better than this run, by {difference(metric, _negative(made))}"
            found.append(Finding(None, "beaten", f"{sentence} ({p_value(_p(made))}).", {"lead": plain(made)}))
        elif row["kind"] == "alone" and _p(made) >= SIGNIFICANT:
            sentence = f"The run is {difference(metric, made)} better than {row['name']}: not distinguishable from it"
            found.append(
                Finding(None, "no better than alone", f"{sentence} ({p_value(_p(made))}).", {"lead": plain(made)})
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
        f"While the model learned, {name} had the largest gradient in {percent(largest[name])} of {steps} steps; "
        f"norms were in conflict in {percent(conflict_rate)}."
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


def _p(estimate: Estimate) -> float:
    return 1.0 if estimate.p is None else estimate.p


def _negative(estimate: Estimate) -> Estimate:
    return Estimate(-estimate.value, -estimate.high, -estimate.low, estimate.p, estimate.error)
