"""What a comparison over seeds shows, in sentences that claim no more than the numbers do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.functional.statistics import paired_permutation
from equipoise.report.tables import Spread, spread

Results = Sequence[Mapping[str, Any]]


def verdict(results: Mapping[str, Results], name: str, modalities: Sequence[str], own: str) -> list[str]:
    """Sentences on `plain`, `balanced`, `multi-loss` and `<modality>-alone`.

    Args:
        results: contents of `test.json`, one a seed, by these names.
        name: what `balanced` is called.
        modalities: whose own figures to compare.
        own: the metric of these, higher is better.
    """
    fused = {key: [result["metrics"]["mae"] for result in results[key]] for key in ("plain", "balanced", "multi-loss")}
    inside = {key: {m: [r["modalities"][m][own] for r in results[key]] for m in modalities} for key in fused}
    alone = {m: [r["metrics"][own] for r in results[f"{m}-alone"]] for m in modalities}

    lines = [starvation(inside["plain"], alone, own), fused_sentence(name, fused["balanced"], fused["plain"])]
    lines.append(own_sentence(name, inside["balanced"], inside["plain"], own))
    lines.append(
        own_sentence("Multi-loss", inside["multi-loss"], inside["plain"], own)
        + f" Its fused mae: {_against(fused['multi-loss'], fused['plain'])}."
    )
    return lines


def starvation(inside: Mapping[str, Sequence[float]], alone: Mapping[str, Sequence[float]], own: str) -> str:
    """How far each modality falls short, inside the joint model, of what it reaches alone."""
    parts = [f"{m} {spread(values).mean:.3f} ({spread(alone[m]).mean:.3f} alone)" for m, values in inside.items()]
    return f"Inside the plain model, own {own}: {', '.join(parts)}."


def fused_sentence(name: str, ours: Sequence[float], plain: Sequence[float]) -> str:
    """Whether the fused error (lower is better) got better, by spread and by a paired test over seeds."""
    difference = spread(ours).mean - spread(plain).mean
    text = f"{name} against plain, fused mae: {_against(ours, plain)}"
    if len(ours) < 2:
        return f"{text}. One seed says nothing about spread: nothing is shown."
    p, least = paired_permutation(ours, plain).p, 2.0 ** (1 - len(ours))
    text += f", p = {p:.2f} in a paired test over seeds"
    if least >= 0.05:
        text += f" ({len(ours)} seeds can't go below {least:.2f})"
    if not _beyond(ours, plain):
        return f"{text}: no more than chance; balancing did not help the fusion here."
    better = "lower" if difference < 0 else "higher: balancing hurt the fusion here"
    return f"{text}: {better}{'' if p < 0.05 else ', though this many seeds are no proof'}."


def own_sentence(name: str, ours: Mapping[str, Sequence[float]], plain: Mapping[str, Sequence[float]], own: str) -> str:
    """The change of each modality's own figure, and which changes exceed the spread over seeds."""
    changes = [f"{m} {_against(ours[m], plain[m])}" for m in ours]
    return f"{name} against plain, own {own}: {', '.join(changes)}."


def _against(ours: Sequence[float], plain: Sequence[float]) -> str:
    difference = spread(ours).mean - spread(plain).mean
    if len(ours) < 2:
        return f"{difference:+.3f}"
    where = "beyond" if _beyond(ours, plain) else "within"
    return f"{difference:+.3f} ({where} the spread of {_noise(ours, plain):.3f})"


def _noise(ours: Sequence[float], plain: Sequence[float]) -> float:
    """The larger of the two standard deviations over seeds."""
    return max(_sd(spread(ours)), _sd(spread(plain)))


def _beyond(ours: Sequence[float], plain: Sequence[float]) -> bool:
    return abs(spread(ours).mean - spread(plain).mean) > _noise(ours, plain)


def _sd(found: Spread) -> float:
    return found.sd or 0.0
