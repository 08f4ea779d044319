"""What the study found, in Markdown: ``python -m benchmarks.study.page [--out runs/study] [--pictures FOLDER]``.

Reads the tables of the four grids that ``python -m benchmarks.study.run`` writes; a grid that is not there is left out.
Differences are in hundredths of the metric (points of accuracy, 0.01 of mean absolute error); above 0 is better.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from benchmarks.study.run import DATASETS, FACTORS
from scipy.stats import ttest_rel

from equipoise.experiments.ranks import rank_methods
from equipoise.metrics import better
from equipoise.report.critical_difference import plot_critical_difference
from equipoise.report.tables import Cell, Spread, Table, to_markdown

OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD"}
CONTROLS = ("plain", "multi_loss", "alone", "ensemble")
Found = dict[tuple[str, str, str], dict[str, Any]]  # by optimizer, dataset, method


def main() -> None:
    """Print the tables, and draw the rankings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--pictures", type=Path, help="where to write the rankings, as SVG and PNG")
    args = parser.parse_args()
    figures, pairs = Found(), Found()
    for optimizer, task in product(OPTIMIZERS, ("classification", "regression")):
        path = args.out / f"{task}-{optimizer}" / "tables" / "comparison.json"
        if not path.is_file():
            continue
        grid = json.loads(path.read_text())
        figures |= {(optimizer, each["dataset"], each["method"]): each for each in grid["figures"]}
        against = [each for each in grid["pairs"] if each["against_role"] == "plain"]
        pairs |= {(optimizer, each["dataset"], each["method"]): each for each in against}
    for table in (controls(figures), differences(pairs), against_both(figures, pairs), places(figures), power(pairs)):
        print(to_markdown(table))
    for optimizer, shown in OPTIMIZERS.items():
        scores = common(figures, optimizer)
        if len(scores) > 1:
            ranking = rank_methods(scores)
            print(f"{shown}: Friedman p = {ranking.p:.2g} over {', '.join(scores)}; ranks {summary(ranking.ranks)}\n")
            if args.pictures is not None:
                title = f"Average rank over {len(scores)} datasets, {shown}"
                plot_critical_difference(asdict(ranking), args.pictures / f"study-ranks-{optimizer}", title=title)


def columns(found: Found) -> list[tuple[str, str]]:
    """The datasets under each optimizer that are there."""
    seen = {(optimizer, dataset) for optimizer, dataset, _ in found}
    return [(optimizer, dataset) for dataset in DATASETS for optimizer in OPTIMIZERS if (optimizer, dataset) in seen]


def named(found: Found, roles: tuple[str, ...] | None = None) -> list[str]:
    return list(dict.fromkeys(key[2] for key, each in found.items() if roles is None or each["role"] in roles))


def title(optimizer: str, dataset: str) -> str:
    return f"{dataset}, {OPTIMIZERS[optimizer]}"


def controls(figures: Found) -> Table:
    """What tuned training reaches without a method."""
    rows = []
    for name in named(figures, CONTROLS):
        each = [figures.get((*column, name)) for column in columns(figures)]
        rows.append(
            (name, *(None if one is None else Spread(one["mean"], one["sd"], len(one["values"])) for one in each))
        )
    return Table("Controls", ("control", *(title(*column) for column in columns(figures))), tuple(rows))


def differences(pairs: Found) -> Table:
    """Every method minus the plain training."""
    rows: list[tuple[Cell, ...]] = []
    for name in named(pairs):
        rows.append((name, *(marked(pairs.get((*column, name))) for column in columns(pairs))))
    note = (
        "† better, § worse: p < 0.05 corrected by Holm over the pairs of its grid. · p < 0.05 before that correction."
    )
    return Table("Minus plain", ("method", *(title(*each) for each in columns(pairs))), tuple(rows), notes=(note,))


def marked(pair: Mapping[str, Any] | None) -> str | None:
    if pair is None:
        return None
    better = pair["difference"] > 0
    mark = "·" if pair["p_both"] < 0.05 else ""
    mark = ("†" if better else "§") if pair["corrected"] < 0.05 else mark
    return f"{100 * pair['difference']:+.1f}{mark}"


def against_both(figures: Found, pairs: Found) -> Table:
    """The method that looks best on each dataset, beside the controls. Chosen on test figures: it flatters."""
    rows: list[tuple[Cell, ...]] = []
    for column in columns(figures):
        here = {name: each for (one, where, name), each in figures.items() if (one, where) == column}
        sign = 1 if better(next(iter(here.values()))["metric"]) == "max" else -1
        best = max((e for e in here.values() if e["role"] == "method"), key=lambda e: sign * e["mean"])
        pair = pairs[column[0], column[1], best["method"]]
        interval = " to ".join(f"{100 * pair[end]:+.1f}" for end in ("low", "high"))
        control = max((e for e in here.values() if e["role"] in CONTROLS), key=lambda e: sign * e["mean"])
        rows.append(
            (
                title(*column),
                best["method"],
                f"{100 * pair['difference']:+.1f} ({interval})",
                f"{pair['p_both']:.3f}, {pair['corrected']:.2f}",
                control["method"],
                f"{100 * sign * (best['mean'] - control['mean']):+.1f}",
            )
        )
    heads = ("where", "best method on test", "minus plain (95 %)", "p, corrected", "best control", "minus it")
    return Table("The best of each column, chosen on the test split", heads, tuple(rows))


def places(figures: Found) -> Table:
    """Factors on the optimizer's step minus the same factors on the gradient, both tuned, on the same five seeds."""
    rows: list[tuple[Cell, ...]] = []
    for optimizer, shown in OPTIMIZERS.items():
        gains, ps = [], []
        for method, dataset in product(FACTORS, DATASETS):
            both = [figures.get((optimizer, dataset, name)) for name in (f"{method}, update", method)]
            if both[0] is None or both[1] is None:
                continue
            sign = 1 if better(both[0]["metric"]) == "max" else -1
            update, gradient = (sign * np.array(each["values"]) for each in both if each is not None)
            gains.append(100 * float((update - gradient).mean()))
            ps.append(float(ttest_rel(update, gradient).pvalue))
        if gains:
            rows.append((shown, len(gains), sum(g > 0 for g in gains), fmean(gains), median(gains), least_holm(ps)))
    heads = ("optimizer", "pairs", "update ahead", "mean gain", "median gain", "least p, corrected")
    return Table("On the step or on the gradient", heads, tuple(rows))


def least_holm(ps: list[float]) -> float:
    return min(1.0, min(ps) * len(ps))


def power(pairs: Found) -> Table:
    """How small a difference each column could have shown."""
    rows: list[tuple[Cell, ...]] = []
    for column in columns(pairs):
        here = [each for (one, where, _), each in pairs.items() if (one, where) == column]
        half = median(100 * (each["high"] - each["low"]) / 2 for each in here)
        open_ = [each for each in here if each["p_both"] < 0.05]
        ahead = sum(each["difference"] > 0 for each in open_)
        shown = [each for each in here if each["corrected"] < 0.05]
        won = sum(each["difference"] > 0 for each in shown)
        rows.append((title(*column), len(here), half, ahead, len(open_) - ahead, won, len(shown) - won))
    heads = ("where", "pairs", "half of the interval", "p < 0.05: better", "worse", "corrected: better", "worse")
    return Table("What could be seen", heads, tuple(rows))


def common(figures: Found, optimizer: str) -> dict[str, dict[str, float]]:
    """Scores of what ran on every dataset, higher is better."""
    roles = ("plain", "multi_loss", "method")
    by_dataset = {
        dataset: {
            name: each["mean"] * (1 if better(each["metric"]) == "max" else -1)
            for (one, where, name), each in figures.items()
            if (one, where) == (optimizer, dataset) and each["role"] in roles
        }
        for (found, dataset) in columns(figures)
        if found == optimizer
    }
    shared = set.intersection(*(set(scores) for scores in by_dataset.values())) if by_dataset else set()
    return {dataset: {n: s for n, s in scores.items() if n in shared} for dataset, scores in by_dataset.items()}


def summary(ranks: Mapping[str, float]) -> str:
    def parts() -> Iterator[str]:
        for name, rank in ranks.items():
            yield f"{name} {rank:.1f}"

    return "; ".join(parts())


if __name__ == "__main__":
    main()
