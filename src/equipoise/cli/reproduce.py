"""`equipoise reproduce`: a table or figure of a paper, run anew, with the published figures beside ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.console import add_json_flag, print_json, print_table
from equipoise.cli.engine import add_engine_flags, engine_held, jobs_of
from equipoise.cli.reproduced import draw, marks_of, result_table, write

if TYPE_CHECKING:
    from equipoise.experiments.reproduce import Job
    from equipoise.experiments.reproduction import Reproduction
    from equipoise.experiments.store import Store

EXAMPLES = """\
examples:
  equipoise reproduce --list
  equipoise reproduce ags-smoe.table3                      (what is run, what was published, what data to get)
  equipoise reproduce ags-smoe.table3 --data data --text models/bert-base-uncased --jobs 8
  equipoise reproduce agm.table1 --data data --rows Joint AGM --seeds 0 1 2 --train.epochs 20
  equipoise reproduce glomo.table4 --scale tiny            (generated data: shows that it runs, and no more)

Datasets lie in DIR/NAME. `--section.name VALUE` goes over every run. The same command goes on where it was stopped."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "reproduce",
        help="run a table or figure of a paper, with the published figures beside",
        epilog=EXAMPLES,
        description="Run every row of a paper's table with the paper's settings, and print the published figures,\n"
        "ours (chosen on validation data, and the best on test) and the difference.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="what to run, such as agm.table1")
    parser.add_argument("--list", action="store_true", help="list what can be run")
    parser.add_argument("--data", metavar="DIR", help="folder with the datasets, each under its name")
    parser.add_argument(
        "--scale",
        choices=["full", "tiny"],
        default="full",
        help="tiny: see that it runs, on generated data",
    )
    parser.add_argument("--on", nargs="+", metavar="DATASET", help="datasets of the table (those that DIR has)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="rows, by the start of their names (all)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="seeds (those of the table)")
    parser.add_argument("--text", metavar="ENCODER", help="text encoder: a path, a name, `minilm`, or `none`")
    add_engine_flags(parser)
    parser.add_argument("--out", metavar="DIR", help="where results and runs go (runs/reproduce/NAME)")
    parser.add_argument("--retry-failed", action="store_true", help="run again what has failed before")
    parser.add_argument("--dry-run", action="store_true", help="print the runs and the estimated hours, run nothing")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """List, explain, or run. Returns 1 where a run has failed."""
    from equipoise.cli.dry_run import dry_run
    from equipoise.experiments.clock import clock_of
    from equipoise.experiments.figures import gather
    from equipoise.experiments.reproduce import find_data, plan, tiny_data, waves
    from equipoise.experiments.reproduction import load
    from equipoise.experiments.store import Store

    if args.list or args.name is None:
        return listed(json=args.json)
    table = load(args.name)
    tiny = args.scale == "tiny"
    if tiny and args.data is not None:
        raise ValueError("`--scale tiny` runs on generated data. Leave out `--data`.")
    if not tiny and args.data is None:
        return explained(table, json=args.json)
    jobs_at_once = jobs_of(args)
    out = Path(args.out) if args.out else Path("runs") / "reproduce" / (f"{args.name}-tiny" if tiny else args.name)
    data = tiny_data(table, out / "data", args.on) if tiny else find_data(table, args.data, args.on)
    store = Store(out)
    jobs = plan(table, data, store, seeds=args.seeds, rows=args.rows, overrides=settings(args), tiny=tiny)
    cells = [cell for wave in waves(jobs) for cell in wave]
    clock = clock_of(store, cells, jobs_at_once)
    if args.dry_run:
        first = waves(jobs)[0]  # what learns from these can't be tried before they have run
        code = dry_run(first, [cell for cell in first if not store.done(cell.id)], clock, json=args.json)
        if len(first) < len(cells) and not args.json:
            print(f"{len(cells) - len(first)} more runs learn from these, and are not in the estimate.")
        return code
    with engine_held(args, jobs_at_once):
        execute(jobs, store, jobs_at_once, args)
    figures = gather(table, jobs)
    errors, marks = failures(jobs, store), marks_of(jobs)
    pictures = [str(path) for path in draw(table, jobs, out)]
    report = result_table(table, figures, errors, marks, tiny=tiny)
    write(out, figures, report, marks)
    if args.json:
        found = {"name": table.name, "figures": [figure.to_dict() for figure in figures], "errors": errors}
        print_json({**found, "marks": marks, "notes": list(report.notes), "pictures": pictures, "out": str(out)})
    else:
        print_table(report)
        print(f"\nFigures: {out / 'figures.csv'}. Runs: {out / 'runs'}.")
        if pictures:
            print(f"Pictures: {', '.join(pictures)}.")
    return int(bool(errors))


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The overrides of the command line, as YAML reads them."""
    import yaml

    found = {key: yaml.safe_load(value) for key, value in args.overrides.items()}
    if args.text is not None:
        found["text.encoder"] = args.text
    return found


def listed(*, json: bool) -> int:
    """Print the names of all that can be reproduced."""
    from equipoise.experiments.reproduction import load, names
    from equipoise.report.tables import Table, to_records

    rows = []
    for name in names():
        table = load(name)
        runs = sum(len([row for row in table.rows_of(each) if row.absent is None]) for each in table.datasets)
        figures = sum(value is not None for row in table.rows for each in row.published.values() for value in each)
        rows.append((name, table.paper, table.item, table.title, ", ".join(table.datasets), runs, figures))
    columns = ("name", "paper", "item", "what", "datasets", "runs a seed", "published figures")
    found = Table("Tables and figures (equipoise reproduce NAME --data DIR)", columns, tuple(rows))
    if json:
        print_json(to_records(found)["rows"])
    else:
        print_table(found)
    return 0


def explained(table: Reproduction, *, json: bool) -> int:
    """Print the published figures and what data to get."""
    from equipoise.experiments.figures import Figure
    from equipoise.experiments.reproduce import guide

    figures = [
        Figure(dataset, row.label, column, metric, table.published(row, dataset)[column])
        for dataset in table.datasets
        for row in table.rows_of(dataset)
        for column, metric in table.columns_of(dataset).items()
    ]
    if json:
        print_json({"name": table.name, "figures": [each.to_dict() for each in figures], "data": guide(table)})
        return 0
    print_table(result_table(table, figures, {}, {}, tiny=False))
    print("\nTo run it, get the data, put each dataset into DIR/NAME, and give `--data DIR`:\n")
    print("\n".join(guide(table)))
    return 0


def execute(jobs: Sequence[Job], store: Store, at_once: int, args: argparse.Namespace) -> None:
    """Run what has no result, those that others learn from first."""
    from equipoise.cli.grid_progress import grid_progress
    from equipoise.experiments.clock import clock_of
    from equipoise.experiments.pool import run_cells
    from equipoise.experiments.reproduce import waves
    from equipoise.experiments.train import train_cells

    for cells in waves(jobs):
        if args.retry_failed:
            for cell in cells:
                store.forget(cell.id)
        waiting = [cell for cell in cells if not (store.done(cell.id) or store.failed(cell.id))]
        if not waiting:
            continue
        with grid_progress(cells, waiting, clock_of(store, cells, at_once)) as told:
            work = train_cells(store)
            run_cells(waiting, work, store, jobs=at_once, told=told, engine=args.engine, address=args.address)


def failures(jobs: Sequence[Job], store: Store) -> dict[str, str]:
    """What became of the runs that failed."""
    return {
        f"{job.dataset}, {job.row.label}, seed {job.cell.seed}": str(store.read(job.cell.id).get("error"))
        for job in jobs
        if store.failed(job.cell.id)
    }
