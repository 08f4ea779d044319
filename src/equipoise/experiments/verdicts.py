"""From figures and tests to sentences, by explicit rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from equipoise.experiments.findings import Analysis, Figure, Pair
from equipoise.metrics import better

ERRORS = {"mae": "mean absolute error", "nll": "nats", "loss": "loss", "corr": "correlation"}


def verdict(analysis: Analysis) -> list[str]:
    """What the comparison shows, a sentence or two a line.

    - First, which methods beat both controls anywhere: the training without balancing, and the one with every
      modality's own loss. A method that does not has not earned its place there.
    - Then, for each dataset and model, one line for each method that differs from a control, and one that names all
      others.
    - One where a modality alone, or the ensemble of them, reaches more than the plain training.
    - What the number of seeds can't show.

    A difference is one where its p, corrected by Holm over all pairs, is below the level.
    """
    own = [pair for pair in analysis.pairs if _role(analysis, pair) == "method"]
    lines = [_opening(analysis, own)] if own else ["No method was compared with a control."]
    for place in dict.fromkeys((pair.dataset, pair.model) for pair in own):
        here: dict[str, list[Pair]] = {}
        for pair in own:
            if (pair.dataset, pair.model) == place:
                here.setdefault(pair.method, []).append(pair)
        shown = {name: any(pair.outcome != "unclear" for pair in pairs) for name, pairs in here.items()}
        lines += [f"{', '.join(place)}: {_judge(name, pairs)}" for name, pairs in here.items() if shown[name]]
        unclear = [pairs for name, pairs in here.items() if not shown[name]]
        lines += [f"{', '.join(place)}: {_unclear(unclear)}"] if unclear else []
    return lines + _alone(analysis.figures) + _limits(analysis)


def record(analysis: Analysis) -> dict[str, Any]:
    """The analysis with its verdict as plain JSON values: what the tables, the page and the picture are made from."""
    return {**analysis.to_dict(), "verdict": verdict(analysis)}


def amount(metric: str, value: float) -> str:
    """A difference in words: shares in points, anything else as it is.

    >>> amount("accuracy", 0.0123), amount("mae", 0.0123)
    ('1.2 points of accuracy', '0.012 of mean absolute error')
    """
    if metric in ERRORS:
        return f"{abs(value):.3f} of {ERRORS[metric]}"
    return f"{100 * abs(value):.1f} points of {metric}"


def p_value(p: float) -> str:
    """As ``p = 0.041``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def earned(pairs: Sequence[Pair]) -> bool:
    """Whether a method beats the plain training and the one with every modality's own loss."""
    return {"plain", "multi_loss"} <= {pair.against_role for pair in pairs if pair.outcome == "better"}


def _opening(analysis: Analysis, own: Sequence[Pair]) -> str:
    cases: dict[str, dict[tuple[str, str], list[Pair]]] = {}
    for pair in own:
        cases.setdefault(pair.method, {}).setdefault((pair.dataset, pair.model), []).append(pair)
    won = {name: sum(map(earned, places.values())) for name, places in cases.items()}
    named = [f"{name} ({won[name]} of {len(places)})" for name, places in cases.items() if won[name]]
    tests = sum(math.isfinite(pair.corrected) for pair in analysis.pairs)
    under = f"(corrected over {tests} pairs, level {analysis.level:g})"
    if not named:
        return (
            f"No method of {len(cases)} is shown to beat both the plain training and the one with every modality's own "
            f"loss, on any dataset {under}."
        )
    return (
        "Shown to beat both the plain training and the one with every modality's own loss, with the number of datasets "
        f"and models where it does: {', '.join(named)}; no other of {len(cases)} {under}."
    )


def _judge(method: str, pairs: Sequence[Pair]) -> str:
    parts = [_part(pair) for pair in pairs]
    text = f"{method} {', '.join(parts[:-1])}{' and ' if parts[:-1] else ''}{parts[-1]}."
    roles = {pair.against_role for pair in pairs}
    gain = any(pair.outcome == "better" and pair.against_role == "plain" for pair in pairs)
    if gain and "multi_loss" not in roles:
        text += " No training with every modality's own loss stands beside it: the gain may be that of such losses."
    elif gain and not earned(pairs):
        text += " The gain may be that of the modalities' own losses: it has not earned its place here."
    return text


def _unclear(cases: Sequence[Sequence[Pair]]) -> str:
    """Methods that are not shown to differ from any control."""
    against = list(dict.fromkeys(pair.against for pairs in cases for pair in pairs))
    named = [f"{pairs[0].method} ({_ahead(pairs[0])})" for pairs in cases]
    return f"not shown to differ from {' or '.join(against)}: {', '.join(named)}."


def _ahead(pair: Pair) -> str:
    tested = "one seed: not tested" if math.isnan(pair.corrected) else p_value(pair.corrected)
    return f"{_signed(pair)} than {pair.against}, {tested}"


def _part(pair: Pair) -> str:
    how = {
        "better": f"beats {pair.against} by {amount(pair.metric, pair.difference)}",
        "worse": f"is worse than {pair.against} by {amount(pair.metric, pair.difference)}",
        "unclear": f"is not shown to differ from {pair.against} ({_signed(pair)})",
    }[pair.outcome]
    if math.isnan(pair.corrected):
        return f"{how} (one seed: not tested)"
    return f"{how} ({p_value(pair.corrected)}, ahead in {pair.favoured} of {len(pair.seeds)} seeds)"


def _signed(pair: Pair) -> str:
    if not pair.difference:
        return "no better"
    return f"{amount(pair.metric, pair.difference)} {'better' if pair.difference > 0 else 'worse'}"


def _alone(figures: Sequence[Figure]) -> list[str]:
    lines: list[str] = []
    for dataset, model in dict.fromkeys((figure.dataset, figure.model) for figure in figures):
        here = [f for f in figures if (f.dataset, f.model) == (dataset, model) and math.isfinite(f.mean)]
        plain = next((figure for figure in here if figure.role == "plain"), None)
        alone = [figure for figure in here if figure.role in ("alone", "ensemble")]
        if plain is None or not alone:
            continue
        sign = 1 if better(plain.metric) == "max" else -1
        best = max(alone, key=lambda figure: sign * figure.mean)
        gap = sign * (best.mean - plain.mean)
        if gap > 0:
            lines.append(
                f"{dataset}, {model}: {best.method} is ahead of {plain.method} with all modalities by "
                f"{amount(plain.metric, gap)} (not tested)."
            )
    return lines


def _limits(analysis: Analysis) -> list[str]:
    counts = sorted({len(figure.seeds) for figure in analysis.figures})
    least = counts[0]
    lines: list[str] = []
    if least == 1:
        lines.append("One seed says nothing about spread over seeds: where there is one, no win is marked.")
    elif 2.0 ** (1 - least) >= analysis.level:
        lines.append(
            f"The sign-flip test over {least} seeds alone can't fall below p = {2.0 ** (1 - least):g}; wins rest on "
            "the test over seeds and samples together, which takes seeds as normally distributed."
        )
    marks = sorted({f"{figure.dataset}: {mark}" for figure in analysis.figures for mark in figure.marks})
    return lines + [f"Mark on every figure of {mark}." for mark in marks]


def _role(analysis: Analysis, pair: Pair) -> str:
    names = (pair.dataset, pair.model, pair.method)
    return next(f.role for f in analysis.figures if (f.dataset, f.model, f.method) == names)
