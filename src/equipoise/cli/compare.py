"""`equipoise compare`: a grid of trainings in, one table out; killed anywhere, the same command goes on."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.console import add_json_flag, print_json, print_table
from equipoise.cli.dry_run import dry_run, may_fail, try_out
from equipoise.cli.engine import add_engine_flags, engine_held, jobs_of
from equipoise.cli.tuning import Ask, Told, run_finals, run_trials, write_trials

if TYPE_CHECKING:
    from equipoise.experiments.cell import Cell
    from equipoise.experiments.clock import Clock
    from equipoise.experiments.rows import Row
    from equipoise.experiments.store import Store
    from equipoise.experiments.tuner import Tuner

TABLES = "tables"

EXAMPLES = """\
A grid in a file, on the command line, or both (flags replace the file's axes; `--section.name VALUE` goes to all runs):

  datasets: {mosi: data/mosi, pom: data/pom}
  models: [AGSSMoE, LateFusion]
  methods:
    plain:
    ags:
    strong: {balancer: ags, balancer.alpha: 1.0}
  seeds: [0, 1, 2, 3, 4]
  base: {train: {epochs: 30}, search: {train.lr: {low: 1e-4, high: 1e-2, log: true}}}
  tuning: {trials: 20}                # of every method and control, on validation data alone

examples:
  equipoise compare grid.yaml --dry-run
  equipoise compare grid.yaml --jobs 8 --out runs/study
  equipoise compare --data data/mosi --model AGSSMoE --method plain ags agm --seeds 0 1 2 --train.epochs 10

The same command goes on where it was stopped. Controls (each modality alone, plain, plain with every modality's own
loss) are added by themselves."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "compare",
        help="train methods, models and datasets over seeds, and compare them",
        epilog=EXAMPLES,
        description="Train every method on every model, dataset and seed, with controls, and print one table.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("grid", nargs="?", metavar="GRID.YAML", help="the grid")
    parser.add_argument("--data", nargs="+", metavar="DIR", help="datasets")
    parser.add_argument("--model", nargs="+", metavar="NAME", help="models, see `equipoise list models`")
    parser.add_argument("--method", nargs="+", metavar="NAME", help="see `equipoise list balancers`; `plain` for none")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="seeds (0 1 2 3 4)")
    parser.add_argument("--metric", metavar="NAME", help="what is compared (accuracy, else mae)")
    parser.add_argument("--no-controls", action="store_true", help="train no controls")
    parser.add_argument("--out", metavar="DIR", help="where results and runs go (runs/compare, or runs/GRID)")
    add_engine_flags(parser)
    parser.add_argument(
        "--merge",
        nargs="+",
        metavar="DIR",
        default=[],
        help="first take over the results in other stores",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run again what has failed before")
    parser.add_argument("--dry-run", action="store_true", help="print the cells and the estimated hours, run nothing")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, check, run, print. Returns 1 where something has failed that `may_fail` does not forgive."""
    from equipoise.experiments.clock import clock_of
    from equipoise.experiments.grid import load_grid
    from equipoise.experiments.plan import plan, plan_studies
    from equipoise.experiments.store import Store
    from equipoise.experiments.tuner import Tuner
    from equipoise.report.results import SHOWN
    from equipoise.training.arguments import unknown

    jobs = jobs_of(args)
    if args.metric is not None and args.metric not in SHOWN:
        raise ValueError(f"Parameter `--metric`: {unknown('metric', args.metric, SHOWN)}")
    grid = load_grid(args.grid, given(args))
    studies = [] if grid.tuning is None else plan_studies(grid)
    out = Path(args.out) if args.out else Path("runs") / (Path(args.grid).stem if args.grid else "compare")
    if args.dry_run and not out.is_dir():
        cells = Tuner(studies, None).cells() if studies else plan(grid)
        return dry_run(cells, cells, clock_of(None, cells, jobs), json=args.json)
    store = Store(out)
    for other in args.merge:
        merge(store, Path(other))
    done, failed = store.ids(), set() if args.retry_failed else store.ids("failed")
    retry = args.retry_failed and not args.dry_run
    with contextlib.ExitStack() as stack:
        tuner = Tuner(studies, store, keep=not args.dry_run, retry=retry) if studies else None
        if tuner is not None:
            stack.callback(tuner.close)
        cells = plan(grid) if tuner is None else tuner.cells()
        waiting = [cell for cell in cells if cell.id not in done | failed] if tuner is None else tuner.waiting()
        clock = clock_of(store, cells, jobs)
        if args.dry_run:
            return dry_run(cells, waiting, clock, json=args.json)
        if tuner is None:
            try_out(waiting, clock, 0.0)
        else:  # a trial of each kind; of the others one a dataset, for they differ from trials in the test split alone
            finals = {cell.dataset: cell for cell in waiting if cell.split == "test"}
            try_out([*(cell for cell in waiting if cell.split == "valid"), *finals.values()], clock, 0.0)
        return compare(cells, waiting, store, clock, args, tuner)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The keys of a grid that the command line sets."""
    flags = {"datasets": args.data, "models": args.model, "methods": args.method, "seeds": args.seeds}
    found = {key: value for key, value in flags.items() if value is not None}
    if args.data is not None:
        found["datasets"] = {Path(path).resolve().name: path for path in args.data}
        if len(found["datasets"]) < len(args.data):
            raise ValueError(f"Parameter `--data` should hold folders of different names. Found {' '.join(args.data)}.")
    if args.grid is None and args.data is None:
        raise ValueError("nothing to compare: give a grid file, or `--data DIR`. See `equipoise compare --help`.")
    if args.no_controls:
        found["controls"] = False
    return found | {"base": args.overrides}


def merge(store: Store, other: Path) -> None:
    """Take over another store's results, and say what that was."""
    from equipoise.experiments.store import DONE, Store

    if not (other / DONE).is_dir():
        raise FileNotFoundError(f"{other} holds no results of `equipoise compare`.")
    merged = store.merge(Store(other))
    print(f"equipoise: {other}: {merged.taken} results taken, {merged.same} were here.", file=sys.stderr)
    if merged.differing:
        print(
            f"equipoise: warning: {len(merged.differing)} of them have other figures there; ours were kept "
            f"(the first is {merged.differing[0]}).",
            file=sys.stderr,
        )


def compare(
    cells: Sequence[Cell],
    waiting: Sequence[Cell],
    store: Store,
    clock: Clock,
    args: argparse.Namespace,
    tuner: Tuner | None = None,
) -> int:
    """Run what has no result, the trials of settings before all else, then print the table."""
    from equipoise.cli.grid_progress import grid_progress
    from equipoise.experiments.collect import collect_errors, collect_rows
    from equipoise.experiments.pool import run_cells
    from equipoise.experiments.train import train_cells

    def execute(batch: Sequence[Cell], told: Told, ask: Ask | None = None) -> None:
        for cell in batch:
            if args.retry_failed or tuner is None:
                store.forget(cell.id)
        how: dict[str, Any] = {"jobs": clock.jobs, "engine": args.engine, "address": args.address}
        run_cells(batch, train_cells(store), store, told=told, ask=ask, **how)

    with engine_held(args, clock.jobs), grid_progress(cells, waiting, clock) as told:
        if tuner is None:
            execute(waiting, told)
        else:
            run_trials(tuner, cells, execute, told)
            run_finals(tuner, cells, execute, told)
    finals = cells if tuner is None else tuner.finals()
    untuned = {} if tuner is None else tuner.errors()
    errors = {**untuned, **collect_errors(finals, store)}
    show(collect_rows(finals, store), errors, finals, store, args, tuner)
    barren = [study.cell for study in tuner.barren()] if tuner is not None else []
    return int(any(cell in barren or store.failed(cell.id) for cell in [*finals, *barren] if not may_fail(cell)))


def show(
    rows: Sequence[Row],
    errors: dict[str, str],
    cells: Sequence[Cell],
    store: Store,
    args: argparse.Namespace,
    tuner: Tuner | None = None,
) -> None:
    """Print and write the tables, the verdict, and what has failed."""
    from equipoise.experiments.analysis import analyse
    from equipoise.experiments.verdicts import record
    from equipoise.report.comparison import score_table
    from equipoise.report.comparison_page import write_comparison
    from equipoise.report.tables import to_records

    ids = [{**cell.record(), "run": str(store.run_dir(cell.id)), "done": store.done(cell.id)} for cell in cells]
    failed = [f"Failed: {name}: {error}" for name, error in errors.items()]
    if not rows:
        if args.json:
            print_json({"store": str(store.root), "errors": errors, "cells": ids})
        else:
            print("\n".join([*failed, f"No cell has a result. Results: {store.root}"]))
        return
    found = record(analyse(rows, metric=args.metric))
    files = [*write_comparison(found, store.root / TABLES)]
    if tuner is not None:
        files.append(write_trials(tuner, store.root / TABLES / "trials.csv"))
    table = score_table(found)
    if args.json:
        content = {"store": str(store.root), "table": to_records(table), **found, "errors": errors, "cells": ids}
        if tuner is not None:
            content["trials"] = tuner.record()
        print_json({**content, "files": [str(file) for file in files]})
        return
    print_table(table)
    print("\n".join(["", *found["verdict"], *failed, f"\nTables: {store.root / TABLES}. Runs: {store.root / 'runs'}."]))
