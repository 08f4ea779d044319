"""Tables of a comparison, from the record that its statistics leave (``comparison.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.metrics import better
from equipoise.report.tables import Cell, Marked, Spread, Table

Record = Mapping[str, Any]
Part = Mapping[str, Any]

BEATS = {"plain": "†", "multi_loss": "‡"}
WORSE = "§"
KINDS = {"plain": "control", "multi_loss": "control", "alone": "control", "ensemble": "control", "method": "method"}


def score_table(record: Record, *, title: str = "Comparison") -> Table:
    """One row a method, one column a dataset and model: mean ± standard deviation over seeds.

    Signs stand only at differences whose p, corrected over all pairs, is below the level: † better than the plain
    training, ‡ better than the plain training with every modality's own loss, § worse than the plain training. In bold:
    the best of a column, where it is better than every control that it was compared with.
    """
    columns = list(dict.fromkeys((part["dataset"], part["model"]) for part in record["figures"]))
    metrics = {(part["dataset"], part["model"]): part["metric"] for part in record["figures"]}
    rows: list[tuple[Cell, ...]] = []
    for method, kind in _methods(record).items():
        cells: list[Cell] = [_marked(record, _figure(record, *place, method)) for place in columns]
        rows.append((method, kind, _trials(record, method), *cells))
    several = len({model for _, model in columns}) > 1
    heads = tuple(
        f"{dataset}{f', {model}' if several else ''}: {metrics[dataset, model]} {_arrow(metrics[dataset, model])}"
        for dataset, model in columns
    )
    return Table(title, ("method", "kind", "trials", *heads), tuple(rows), tuple(_notes(record)))


def pair_table(record: Record, *, title: str = "Methods against their controls") -> Table:
    """One row a pair: the difference with its interval, the tests, the corrected p, and the size of the effect."""
    rows: list[tuple[Cell, ...]] = [
        (
            *(pair[name] for name in ("dataset", "model", "method", "against", "metric", "difference")),
            _between(pair["low"], pair["high"]),
            f"{pair['favoured']} of {len(pair['seeds'])}",
            *(_p(pair[name]) for name in ("p_samples", "p_seeds", "p_least", "p_both", "corrected")),
            _two(pair["effect"]),
            _two(pair["superiority"]),
            pair["outcome"],
        )
        for pair in record["pairs"]
    ]
    columns = (
        *("dataset", "model", "method", "against", "metric", "difference", "95 % interval", "seeds ahead"),
        *("p samples", "p seeds", "its least", "p both", "p corrected", "Hedges' g", "superiority", "outcome"),
    )
    notes = (
        "Differences are positive where the method is better, whichever way the metric points. Interval and p both: "
        "over seeds and samples together. p samples: of these trainings alone. p seeds: sign flips; its least is what "
        "so many seeds can give. p corrected: Holm, over all pairs, of p both (of p seeds where the metric is no mean "
        "over samples).",
    )
    return Table(title, columns, tuple(rows), notes)


def run_table(record: Record, *, title: str = "Figures and the runs that they come from") -> Table:
    """One row a figure: mean ± deviation over seeds, the interval over test samples, and its run directories."""
    rows: list[tuple[Cell, ...]] = [
        (
            *(part[name] for name in ("dataset", "model", "method", "metric")),
            spread_of(part),
            _between(part["low"], part["high"]),
            ", ".join(str(seed) for seed in part["seeds"]),
            part["trials"],
            " ".join(part["paths"]),
        )
        for part in record["figures"]
    ]
    columns = ("dataset", "model", "method", "metric", "value", "95 % interval", "seeds", "trials", "runs")
    notes = (
        "Values are mean ± standard deviation over seeds. Interval: bootstrap over test samples, of each sample's mean "
        "over seeds; the trained weights are held fixed.",
    )
    return Table(title, columns, tuple(rows), notes)


def rank_table(model: str, ranking: Part) -> Table:
    """Average ranks over datasets, the best first."""
    rows: tuple[tuple[Cell, ...], ...] = tuple((name, float(rank)) for name, rank in ranking["ranks"].items())
    friedman = "" if ranking["p"] is None else f" Friedman: χ² {ranking['statistic']:.2f}, {_word(ranking['p'])}."
    small = " With so few datasets both tests see only large differences." if len(ranking["datasets"]) < 10 else ""
    note = (
        f"Over {', '.join(ranking['datasets'])}. Ranks closer than Nemenyi's critical difference, "
        f"{ranking['difference']:.2f}, are not told apart.{friedman}{small}"
    )
    return Table(f"Average ranks, {model}", ("method", "rank"), rows, (note,))


def spread_of(part: Part) -> Spread | None:
    """A figure of the record; None where it is undefined."""
    return None if part["mean"] is None else Spread(part["mean"], part["sd"], len(part["seeds"]))


def is_best(record: Record, part: Part) -> bool:
    """Whether a figure is the best of its column and better than every control that it was compared with."""
    column = [
        other["mean"]
        for other in record["figures"]
        if (other["dataset"], other["model"]) == (part["dataset"], part["model"]) and other["mean"] is not None
    ]
    best = max(column) if better(part["metric"]) == "max" else min(column)
    outcomes = [pair["outcome"] for pair in _pairs(record, part)]
    return part["mean"] == best and bool(outcomes) and set(outcomes) == {"better"}


def _marked(record: Record, part: Part | None) -> Cell:
    figure = None if part is None else spread_of(part)
    if part is None or figure is None:
        return None
    pairs = _pairs(record, part)
    found = {(pair["against_role"], pair["outcome"]) for pair in pairs}
    signs = [sign for role, sign in BEATS.items() if (role, "better") in found]
    signs += [WORSE] if ("plain", "worse") in found else []
    return Marked(figure, "".join(signs), is_best(record, part))


def _methods(record: Record) -> dict[str, str]:
    """``{method: kind}``, the controls first."""
    kinds = {part["method"]: KINDS[part["role"]] for part in record["figures"]}
    return dict(sorted(kinds.items(), key=lambda item: item[1] == "method"))


def _figure(record: Record, dataset: str, model: str, method: str) -> Part | None:
    names = (dataset, model, method)
    return next((f for f in record["figures"] if (f["dataset"], f["model"], f["method"]) == names), None)


def _pairs(record: Record, part: Part) -> list[Part]:
    names = (part["dataset"], part["model"], part["method"])
    return [pair for pair in record["pairs"] if (pair["dataset"], pair["model"], pair["method"]) == names]


def _trials(record: Record, method: str) -> Cell:
    counts = sorted({part["trials"] for part in record["figures"] if part["method"] == method} - {None})
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else counts[0] if counts else None


def _notes(record: Record) -> list[str]:
    tests = sum(pair["corrected"] is not None for pair in record["pairs"])
    counts = sorted({len(part["seeds"]) for part in record["figures"]})
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    lines = [
        f"Mean ± standard deviation over {seeds} seed{'' if counts == [1] else 's'}, test split.",
        "† better than the plain training, ‡ better than the plain training with every modality's own loss, "
        f"{WORSE} worse than the plain training: p < {record['level']:g} over seeds and samples, corrected by Holm "
        f"over {tests} pairs.",
        "Bold: the best of a column where it is better than every control it was compared with; the best and the "
        "second are not compared.",
    ]
    marks = dict.fromkeys(f"{part['dataset']}: {mark}." for part in record["figures"] for mark in part["marks"])
    return lines + list(marks)


def _arrow(metric: str) -> str:
    return "↑" if better(metric) == "max" else "↓"


def _between(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _p(value: float | None) -> str | None:
    return None if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _word(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _two(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
