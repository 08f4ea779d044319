"""From numbers to sentences, by explicit rules: what each modality does in a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from equipoise.diagnostics.estimates import Estimate, Floats, paired, plain
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


class Floor(Interval, Protocol):
    """What a line on pooled features reaches, and how often chance reaches as much."""

    @property
    def p(self) -> float: ...  # noqa: D102


class Reading(Interval, Protocol):
    """A score of one modality, with what each sample adds to it where that was kept."""

    @property
    def points(self) -> Floats | None: ...  # noqa: D102


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
                f"{name} hurts: without it the model gains {difference(metric, cost.reversed())} on these {samples} "
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
    inside: Mapping[str, Mapping[str, Reading]],
    reference: Mapping[str, tuple[str, Reading]],
    *,
    constant: float,
    groups: Sequence[str] | None = None,
    competition: Mapping[str, Mapping[str, Any]] | None = None,
    movement: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Finding]:
    """``"starved"``: a modality reaches far more elsewhere than inside the model.

    Of all that is known of the modality inside the model, the best reading counts. It is starved where

    - the reference does better on the same samples: the interval of the difference, by a paired bootstrap, lies above
      0 (where what each sample adds is not known: interval above interval),
    - the reference's own interval lies above a constant, and
    - the reading is less of a lead over the constant than `STARVED_SHARE` of the reference's.

    Args:
        metric: of the figures.
        inside: ``{m: {how it was read: score}}``, such as the model with it alone, or a probe of its representation.
        reference: ``{m: (what it is, score)}``: a model trained on it alone, or the data's own floor.
        constant: score of the best constant answer.
        groups: ``[N]``, the video or speaker of each sample, resampled as a whole.
        competition: strengths to name beside it.
        movement: of the encoder, to name beside it.
    """
    found = []
    for name, (what, best) in reference.items():
        how, own = max(inside[name].items(), key=lambda each: each[1].value)
        far = own.value - constant < STARVED_SHARE * (best.value - constant)
        if not (far and best.low > constant):
            continue
        gap = None
        if own.points is not None and best.points is not None:
            gap = paired(best.points, own.points, groups=groups)
        if not (own.high < best.low if gap is None else gap.low > 0):
            continue
        sentence = f"{name} is starved: {what} it reaches {level(metric, best)}, inside the model {level(metric, own)}"
        evidence = {"reference": what, "reached": plain(best), "inside": plain(own), "read_by": how}
        evidence |= {} if gap is None else {"difference": plain(gap)}
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


def _p(estimate: Estimate) -> float:
    return 1.0 if estimate.p is None else estimate.p
