"""Every model on one real dataset: ``python -m benchmarks.real.models mosi-models --seeds 0 1 2 3 4``.

Every row is the config with another model in it, at that model's own defaults (TBJE at a quarter of its width): no
setting of any model is tuned, and one learning rate and number of epochs serve all. Finished runs are read, not
repeated; prepare the data first with ``prepare.py``. ``--cost`` trains one epoch of each model in a process of its own,
one after the other, for the columns of cost: parameters, seconds, and peak memory with Python, torch and the data.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.real.table import HERE, SHOWN, Row, read_row, run_one

from equipoise.data import load
from equipoise.functional.statistics import holm, paired_permutation
from equipoise.models import MODELS
from equipoise.report.tables import Cell, Table, spread, to_markdown
from equipoise.training.config import load_config
from equipoise.training.run import run

BASE = "LateFusion"
AGS = {"balancer": {"name": "ags", "alpha": 0.05, "until_epoch": 6}}  # within the ranges of AGS-SMoE's paper
PLUGGED = ("MISA", "SelfMM", "MMIM")  # of its Table 8
# At its published size, 512 wide and 42 million parameters, TBJE trains six minutes an epoch on MOSI and more.
NARROWED = {"TBJE": {"TBJE, 128 wide": {"model": {"name": "TBJE", "hidden": 128, "feed_forward": 256}}}}
TASKS = {"mosi-models": "mosi", "avletters-models": "classification"}


def main() -> None:
    """Run what is not there yet, print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=list(TASKS))
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", help="rows, by the start of their labels; the base is always one")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--cost", action="store_true", help="measure the cost instead")
    args = parser.parse_args()
    config, folder = HERE / f"{args.name}.yaml", args.out / args.name
    rows: dict[str, dict[str, Any]] = {}
    for name in MODELS:
        rows |= NARROWED.get(name, {name: {} if name == BASE else {"model": {"name": name}}})
    rows |= {f"{name} + AGS": rows[name] | AGS for name in PLUGGED}
    chosen = [label for label in rows if label == BASE or label.startswith(tuple(args.only or rows))]
    if args.cost:
        for label in chosen:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                cost = pool.submit(_cost, str(config), rows[label]).result()
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{label}.cost.json").write_text(json.dumps(cost))
            print(label, cost, flush=True)
        return
    jobs = [
        (str(config), rows[label] | {"seed": s}, str(folder / label / str(s))) for s in args.seeds for label in chosen
    ]
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for (_, _, out), metrics in zip(jobs, pool.map(run_one, jobs), strict=True):
            print(out, metrics, flush=True)
    names = list(load_config(config).modalities or load(load_config(config).data).modalities)
    found = [read_row(folder, label, args.seeds, names, "") for label in chosen]
    print(to_markdown(_table(args.name, found, folder, args.seeds)))


def _cost(config: str, overrides: dict[str, Any]) -> dict[str, float]:
    """One epoch: ``{"parameters", "seconds", "megabytes"}``."""
    with tempfile.TemporaryDirectory() as out:
        report = run(load_config(config, overrides | {"train.epochs": 1}), out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"parameters": report["parameters"], "seconds": report["seconds_per_epoch"], "megabytes": peak}


def _table(name: str, rows: list[Row], folder: Path, seeds: list[int]) -> Table:
    shown = SHOWN[TASKS[name]]
    base = next(row for row in rows if row.label == BASE)
    others = [row for row in rows if row is not base]
    tests = [paired_permutation(row.scores.tolist(), base.scores.tolist()) for row in others]
    corrected = dict(zip([row.label for row in others], holm([test.p for test in tests]), strict=True))
    lines: list[tuple[Cell, ...]] = []
    for row in sorted(rows, key=lambda row: -row.scores.mean()):
        p = corrected.get(row.label)
        better = row.scores.mean() > base.scores.mean()
        mark = "" if p is None else f"{p:.3f}" + ((" better" if better else " worse") if p < 0.05 else "")
        cells = [spread([metrics[key] for metrics in row.metrics]) for key in shown]
        lines.append((row.label, *cells, mark, *_costs(folder / f"{row.label}.cost.json")))
    columns = ("model", *shown, "p", "parameters, M", "s/epoch", "peak MB")
    note = (
        f"Test split, {len(seeds)} seeds, mean ± sd over seeds, best first; p: paired permutation over test samples of "
        f"the seed-averaged score (right or wrong; absolute error) against {BASE}, Holm-corrected over the table."
    )
    return Table(name, columns, tuple(lines), (note,))


def _costs(path: Path) -> tuple[Cell, ...]:
    if not path.is_file():
        return (None, None, None)
    found = json.loads(path.read_text())
    return f"{found['parameters'] / 1e6:.2f}", f"{found['seconds']:.1f}", f"{found['megabytes']:.0f}"


if __name__ == "__main__":
    main()
