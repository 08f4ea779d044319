"""From rows to figures with their spread, paired tests against the controls, and ranks over datasets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from equipoise.experiments.crossed import crossed_test
from equipoise.experiments.effects import hedges_g, superiority
from equipoise.experiments.findings import Analysis, Figure, Outcome, Pair
from equipoise.experiments.ranks import Ranking, rank_methods
from equipoise.experiments.rows import Floats, Role, Row
from equipoise.functional.many import mean_intervals, sign_flip_p
from equipoise.functional.statistics import holm, mean_std, paired_permutation
from equipoise.metrics import better

REFERENCES: tuple[Role, ...] = ("plain", "multi_loss")
"""What a method has to beat: the same training without balancing, and that with every modality's own loss."""
SEED_FLIPS = 100_000
"""Of the test over more than 16 seeds; they are few, and so cost little."""


def analyse(
    rows: Sequence[Row],
    *,
    metric: str | Mapping[str, str] | None = None,
    level: float = 0.05,
    resamples: int = 2000,
    permutations: int = 2000,
) -> Analysis:
    """Everything that a comparison's tables say, from its rows.

    Args:
        rows: of all datasets, models, methods and seeds, in the order of the tables.
        metric: of every dataset, or ``{dataset: metric}``; None takes ``accuracy``, and ``mae`` where there is none.
        level: below which a corrected p makes a difference one.
        resamples: of each bootstrap interval.
        permutations: of each test over samples.

    Raises:
        ValueError: no rows, two of one cell, a metric that rows lack, or test samples that differ within a dataset.
    """
    if not rows:
        raise ValueError("Parameter `rows` should hold results. Found none.")
    cells: dict[tuple[str, str, str], dict[int, Row]] = {}
    for row in rows:
        seeds = cells.setdefault((row.dataset, row.model, row.method), {})
        if row.seed in seeds:
            raise ValueError(
                f"Parameter `rows` should hold one row a cell. Found two of {row.dataset}, {row.model}, {row.method}, "
                f"seed {row.seed}."
            )
        seeds[row.seed] = row
    metrics = {row.dataset: _metric(row, metric) for row in rows}
    figures = _figures(cells.values(), metrics, resamples)
    found: list[tuple[Pair, Floats | None]] = []
    for (dataset, model, _), seeds in cells.items():
        there = {
            name: next(iter(cells[d, m, name].values())).role for d, m, name in cells if (d, m) == (dataset, model)
        }
        for control in _controls(next(iter(seeds.values())), there):
            pair = _pair(seeds, cells[dataset, model, control], metrics[dataset])
            found += [pair] if pair is not None else []
    pairs = _over_samples(found, permutations)
    return Analysis(figures, tuple(_corrected(pairs, level)), _rankings(figures, level), level)


def _metric(row: Row, metric: str | Mapping[str, str] | None) -> str:
    wanted = metric.get(row.dataset) if isinstance(metric, Mapping) else metric
    name = wanted or ("accuracy" if "accuracy" in row.metrics else "mae")
    if name not in row.metrics:
        raise ValueError(
            f"Parameter `metric` should be one that every run on {row.dataset!r} has. Found {name!r}; {row.method!r}, "
            f"seed {row.seed}, has {', '.join(row.metrics)}."
        )
    return name


def _figures(cells: Iterable[Mapping[int, Row]], metrics: Mapping[str, str], resamples: int) -> tuple[Figure, ...]:
    found: list[Figure] = []
    by_sample: list[Floats | None] = []
    for of in cells:
        seeds = tuple(sorted(of))
        first = of[seeds[0]]
        metric = metrics[first.dataset]
        values = tuple(of[seed].metrics[metric] for seed in seeds)
        scores = _scores(of, seeds, metric, first)
        by_sample.append(None if scores is None else scores.mean(axis=0))
        found.append(Figure(
            first.dataset, first.model, first.method, first.role, metric, *mean_std(values), values, seeds, math.nan,
            math.nan, first.trials, tuple(of[seed].path or "" for seed in seeds), first.marks,
        ))  # fmt: skip
    for places, table in _of_one_length(by_sample):
        for place, (low, high) in zip(places, mean_intervals(table, resamples=resamples), strict=True):
            found[place] = replace(found[place], low=low, high=high)
    return tuple(found)


def _of_one_length(vectors: Sequence[Floats | None]) -> Iterator[tuple[list[int], Tensor]]:
    """Places of vectors of one length n, and the table `[F, n]` of them; None is left out."""
    places: dict[int, list[int]] = {}
    for place, vector in enumerate(vectors):
        if vector is not None:
            places.setdefault(len(vector), []).append(place)
    for each in places.values():
        yield each, torch.from_numpy(np.stack([vector for place in each if (vector := vectors[place]) is not None]))


def _over_samples(pairs: Sequence[tuple[Pair, Floats | None]], permutations: int) -> list[Pair]:
    """The test over samples of those pairs that have scores of samples."""
    found = [pair for pair, _ in pairs]
    for places, table in _of_one_length([differences for _, differences in pairs]):
        for place, p in zip(places, sign_flip_p(table, permutations=permutations), strict=True):
            found[place] = replace(found[place], p_samples=p)
    return found


def _controls(row: Row, there: Mapping[str, Role]) -> list[str]:
    """Names of what a row's method is judged by: those it names, or of each kind one called after it, or the first."""
    if row.role not in ("method", "multi_loss"):
        return []
    if row.against:
        return [name for name in row.against if name in there]
    owner = row.method if row.role == "method" else row.method.partition("(")[2].removesuffix(")")
    found: list[str] = []
    for role in REFERENCES if row.role == "method" else REFERENCES[:1]:
        names = [name for name, of in there.items() if of == role]
        found += ([name for name in names if name.endswith(f"({owner})")] or names)[:1]
    return found


def _pair(method: Mapping[int, Row], control: Mapping[int, Row], metric: str) -> tuple[Pair, Floats | None] | None:
    """With the differences of samples, averaged over seeds, which `p_samples` waits for.

    None where they share no seed, or the metric is undefined in one of those they share.
    """
    seeds = tuple(sorted(method.keys() & control.keys()))
    sign = 1.0 if better(metric) == "max" else -1.0
    first = [sign * method[seed].metrics[metric] for seed in seeds]
    second = [sign * control[seed].metrics[metric] for seed in seeds]
    if not seeds or not all(math.isfinite(value) for value in first + second):
        return None
    one, other = method[seeds[0]], control[seeds[0]]
    left, right = _scores(method, seeds, metric, one), _scores(control, seeds, metric, one)
    p_both, low, high = (math.nan,) * 3
    differences = None
    over_seeds = paired_permutation(first, second, permutations=SEED_FLIPS)
    if left is not None and right is not None:
        differences = left.mean(axis=0) - right.mean(axis=0)
        if len(seeds) > 1 and left.shape[1] > 1:
            both = crossed_test(sign * (left - right))
            p_both, low, high = both.p, both.low, both.high
    decides = p_both if left is not None and right is not None else over_seeds.p
    pair = Pair(
        dataset=one.dataset,
        model=one.model,
        method=one.method,
        against=other.method,
        against_role=other.role,
        metric=metric,
        difference=over_seeds.difference,
        low=low,
        high=high,
        seeds=seeds,
        favoured=sum(a > b for a, b in zip(first, second, strict=True)),
        p_samples=math.nan,
        p_seeds=over_seeds.p,
        p_least=2.0 ** (1 - len(seeds)) if over_seeds.exact else 1 / (1 + over_seeds.permutations),
        p_both=p_both,
        corrected=decides if len(seeds) > 1 else math.nan,
        effect=hedges_g(first, second),
        superiority=superiority(first, second),
    )
    return pair, differences


def _scores(cells: Mapping[int, Row], seeds: Sequence[int], metric: str, like: Row) -> Floats | None:
    """``[S, n]`` in the sample order of `like`, without samples that don't count; None where the metric has none."""
    if any(metric not in cells[seed].scores for seed in seeds):
        return None
    found: list[Floats] = []
    for seed in seeds:
        row = cells[seed]
        if sorted(row.samples) != sorted(like.samples):
            raise ValueError(
                f"Parameter `rows` should hold the same test samples for all runs on {row.dataset!r}. Found "
                f"{len(row.samples)} in {row.method!r}, seed {seed}, and {len(like.samples)} in {like.method!r}, "
                f"seed {like.seed}, or others of that number."
            )
        values = np.array(row.scores[metric])
        if row.samples != like.samples:
            place = {name: i for i, name in enumerate(row.samples)}
            values = values[[place[name] for name in like.samples]]
        found.append(values)
    table = np.stack(found)
    table = table[:, np.isfinite(table).all(axis=0)]
    return table if table.shape[1] else None


def _corrected(pairs: Sequence[Pair], level: float) -> list[Pair]:
    tested = [i for i, pair in enumerate(pairs) if math.isfinite(pair.corrected)]
    corrected = dict(zip(tested, holm([pairs[i].corrected for i in tested]) if tested else [], strict=True))
    found: list[Pair] = []
    for i, pair in enumerate(pairs):
        p = corrected.get(i, math.nan)
        outcome: Outcome = "unclear"
        if p < level and pair.difference:
            outcome = "better" if pair.difference > 0 else "worse"
        found.append(replace(pair, corrected=p, outcome=outcome))
    return found


def _rankings(figures: Sequence[Figure], level: float) -> dict[str, Ranking]:
    """Each model's methods and references that have a figure on every dataset of the model."""
    found: dict[str, Ranking] = {}
    for model in dict.fromkeys(figure.model for figure in figures):
        scores: dict[str, dict[str, float]] = {}
        for figure in figures:
            own = scores.setdefault(figure.dataset, {}) if figure.model == model else {}
            if figure.role != "alone" and math.isfinite(figure.mean):
                own[figure.method] = figure.mean if better(figure.metric) == "max" else -figure.mean
        everywhere = [name for name in next(iter(scores.values())) if all(name in row for row in scores.values())]
        if len(scores) > 1 and len(everywhere) > 1:
            table = {dataset: {name: row[name] for name in everywhere} for dataset, row in scores.items()}
            found[model] = rank_methods(table, level=level)
    return found
