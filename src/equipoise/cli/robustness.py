"""`equipoise robustness`: what finished runs lose when modalities or frames are missing, or features are noisy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equipoise.cli.arguments import nearest
from equipoise.cli.console import add_json_flag, print_json, print_table
from equipoise.cli.measure import DRAWS, FRAMES, NOISE, RATES, Settings

EXAMPLES = """\
examples:
  equipoise robustness runs/mosi-AGSSMoE-ags
  equipoise robustness runs/plain runs/dropping --metric acc2_pn --out runs/compared
  equipoise robustness runs/plain --drop 0 0.5 1 --frames 0 --noise 0        (missing modalities alone)

Every run meets the same draws. What was measured is kept in the run directory and not measured again."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "robustness",
        help="score finished runs on what is missing or noisy",
        epilog=EXAMPLES,
        description="Score runs where modalities or frames are missing, and under noise: one table, one picture.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_dirs", nargs="+", metavar="RUN_DIR", help="what `equipoise train` wrote, for one seed or several"
    )
    for flag, metavar, levels, text in (
        ("--drop", "RATE", RATES, "rates of samples without a modality (0 0.1 ... 1)"),
        ("--frames", "RATE", FRAMES, "rates of missing frames (0 0.25 0.5 0.75 0.9)"),
        ("--noise", "STD", NOISE, "noise in units of each feature's deviation (0 0.25 0.5 1 2)"),
    ):
        parser.add_argument(flag, type=float, nargs="+", default=levels, metavar=metavar, help=text)
    parser.add_argument("--draws", type=int, default=DRAWS, metavar="N", help="draws of each level (3)")
    parser.add_argument("--metric", metavar="NAME", help="what to show (accuracy, or mae)")
    parser.add_argument("--split", default="test", metavar="NAME", help="train, valid or test (test)")
    parser.add_argument("--data", metavar="DIR", help="another dataset like it, or where it is now")
    parser.add_argument("--out", metavar="DIR", help="for picture and table (RUN_DIR/robustness, or runs/robustness)")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, draw, print."""
    from equipoise.cli.measure import FOLDER, check_settings
    from equipoise.report.robustness import curves, points_table, subset_values, summary_table
    from equipoise.report.robustness_plot import plot_robustness
    from equipoise.report.tables import to_csv, to_records

    settings = check_settings(args.drop, args.frames, args.noise, args.draws, args.split)
    folders = named(args.run_dirs)
    groups, about = collect(folders, args.data, settings)
    metric = chosen_metric(args.metric, next(iter(groups.values()))[0][0]["metrics"])
    beside = Path(args.run_dirs[0]) if len(folders) == 1 else Path("runs")
    out = Path(args.out) if args.out else beside / FOLDER
    title = f"{metric} on {about['dataset']}, {settings.split}"
    table = summary_table(groups, metric, title=title, notes=notes(groups, settings, about))
    points = points_table(groups, metric, title=title)
    out.mkdir(parents=True, exist_ok=True)
    pictures = plot_robustness(
        curves(groups, metric), subset_values(groups, metric), out / "robustness", metric=metric, title=title
    )
    (out / "robustness.csv").write_text(to_csv(points), encoding="utf-8")
    if args.json:
        shown = {"metric": metric, "table": to_records(table), "points": to_records(points)}
        print_json({**shown, "plots": [str(path) for path in pictures], "csv": str(out / "robustness.csv")})
        return 0
    print_table(table)
    print(f"\nPicture and points: {pictures[1]}, {out / 'robustness.csv'}")
    return 0


def named(run_dirs: Sequence[str]) -> dict[str, list[Path]]:
    """The seeds' directories by the run's name: that of its folder, or the whole path where two are called alike.

    Raises:
        ValueError: a directory that is given twice.
    """
    from equipoise.report.runs import run_folders

    if len({Path(each).resolve() for each in run_dirs}) < len(run_dirs):
        raise ValueError(f"Parameter `RUN_DIR` should name each run once. Found {' '.join(run_dirs)}.")
    short = [Path(each).resolve().name for each in run_dirs]
    names = short if len(set(short)) == len(short) else list(run_dirs)
    return {name: run_folders(each) for name, each in zip(names, run_dirs, strict=True)}


def collect(
    folders: dict[str, list[Path]], data: str | None, settings: Settings
) -> tuple[dict[str, list[list[dict[str, Any]]]], dict[str, Any]]:
    """Rows of every seed of every run, and what the notes say of them.

    Raises:
        FileNotFoundError: no run, or no dataset.
        ValueError: a run that has not finished, or runs on different data.
    """
    from equipoise.cli.evaluate import check_fit, open_run
    from equipoise.cli.measure import data_digest, measure
    from equipoise.cli.progress import progress
    from equipoise.report.results import dataset_marks
    from equipoise.training.results import dataset_report

    groups: dict[str, list[list[dict[str, Any]]]] = {}
    about: dict[str, Any] = {"tokens": False}
    every = [folder for seeds in folders.values() for folder in seeds]
    for folder in every:  # what is wrong with the last run is said before the first is measured
        trained, dataset = open_run(folder, data)
        check_fit(trained.dataset.manifest, dataset.manifest, trained.modalities)
        dataset.split(settings.split)
        if about.setdefault("data", data_digest(dataset)) != data_digest(dataset):
            raise ValueError(f"Runs should be of one dataset to be compared. Found another in {folder}.")
        if "dataset" not in about:
            report = dataset_report(dataset)
            about["dataset"] = " ".join([report["name"], *(f"[{mark}]" for mark in dataset_marks(report))])
        about["tokens"] |= any(dataset.manifest.modalities[name].dim == 0 for name in trained.modalities)
    with progress(len(every)) as start:
        for name, seeds in folders.items():
            groups[name] = []
            for folder in seeds:
                trained, dataset = open_run(folder, data)
                show = start(f"{name}, seed {trained.config.seed}")
                groups[name].append(measure(trained, dataset, folder, settings, show))
    return groups, about


def chosen_metric(wanted: str | None, found: dict[str, Any]) -> str:
    """The metric to show.

    Raises:
        ValueError: the data have no such metric.
    """
    if wanted is None:
        return "accuracy" if "accuracy" in found else "mae"
    if wanted not in found:
        raise ValueError(f"unknown metric `{wanted}`.{nearest(wanted, found)} These data have: {', '.join(found)}.")
    return wanted


def notes(groups: dict[str, list[list[dict[str, Any]]]], settings: Settings, about: dict[str, Any]) -> list[str]:
    """What the figures are means of, and what is left out."""
    seeds = [len(rows) for rows in groups.values()]
    over = "seeds" if min(seeds) > 1 else "draws (a run with one seed says nothing about training)"
    draws = f"{settings.draws} draws" if settings.draws > 1 else "1 draw"
    lines = [f"Mean over {draws} of each level, ± standard deviation over {over}. Every run meets the same draws."]
    if any(row["kind"] == "modalities" for rows in groups.values() for row in rows[0]):
        lines.append("No sample loses all that it has: with any missing in 100 %, one modality is left, at random.")
    if about["tokens"]:
        lines.append("Text is token ids: frames missing are masked words (special tokens stay), noise leaves it out.")
    return lines
