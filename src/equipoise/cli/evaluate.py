"""`equipoise evaluate`: score a finished run again, on any split, on other data, or without some modalities."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.arguments import nearest
from equipoise.cli.console import add_json_flag, print_json, print_table
from equipoise.cli.saved import is_saved_model, score_saved

if TYPE_CHECKING:
    from equipoise.data import Dataset, Manifest
    from equipoise.training.model_info import ModelInfo
    from equipoise.training.run import TrainedRun

EXAMPLES = """\
examples:
  equipoise evaluate runs/mosi-AGSSMoE-ags
  equipoise evaluate runs/mosi-AGSSMoE-ags --split valid
  equipoise evaluate runs/mosi-AGSSMoE-ags --drop audio vision
  equipoise evaluate models/mosi-ags --data data/mosi"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score a finished run",
        epilog=EXAMPLES,
        description="Score the model of a run directory, with 95 % bootstrap intervals over samples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="what `equipoise train` or `equipoise export` wrote")
    parser.add_argument("--data", metavar="DIR", help="another dataset like it (the one of its training)")
    parser.add_argument("--split", default="test", metavar="NAME", help="train, valid or test (test)")
    parser.add_argument("--drop", nargs="+", default=[], metavar="MODALITY", help="modalities to do without")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Load, score and print."""
    from equipoise.report.results import result_table
    from equipoise.report.runs import run_folders

    given = (args.data, args.split, args.drop)
    if is_saved_model(Path(args.run_dir)):
        results = [score_saved(Path(args.run_dir), *given)]
    else:
        results = [score(folder, *given) for folder in run_folders(args.run_dir)]
    if args.json:
        print_json({"run": args.run_dir, "results": results})
    else:
        print_table(result_table(results))
    return 0


def score(folder: Path, data: str | None, split: str, drop: Sequence[str]) -> dict[str, Any]:
    """The metrics of one run on one split, as `test.json` has them.

    Raises:
        FileNotFoundError: no run, or no dataset.
        ValueError: a run that has not finished, or data that do not fit it.
    """
    from equipoise.training.evaluate import evaluate
    from equipoise.training.files import read_json
    from equipoise.training.results import dataset_report, test_report

    trained, dataset = open_run(folder, data)
    kept = without(trained.modalities, drop)
    check_fit(trained.dataset.manifest, dataset.manifest, kept)
    rows = dataset.split(split)
    found = evaluate(trained.model, rows, modalities=kept, loss=trained.config.train.loss)
    report = read_json(folder / "test.json") if (folder / "test.json").is_file() else {}
    return {
        "split": split,
        "modalities_used": list(kept),
        "protocol": trained.config.protocol,
        "seed": trained.config.seed,
        "model": trained.config.model.name,
        "balancer": [each.name for each in trained.config.balancer],
        **{key: report[key] for key in ("select", "epoch", "epochs") if key in report},
        **test_report(found, rows),
        "dataset": dataset_report(dataset),
    }


def open_run(folder: Path, data: str | None) -> tuple[TrainedRun, Dataset]:
    """A finished run, and the dataset to score it on: its own, or the one at ``data``.

    Raises:
        FileNotFoundError: no run, or no dataset.
        ValueError: a run that has not finished, or data that do not fit it.
    """
    from equipoise.training.prepare import open_dataset
    from equipoise.training.run import load_run

    try:
        trained = load_run(folder)
        return trained, trained.dataset if data is None else open_dataset(data, trained.config.text)
    except FileNotFoundError:
        if data is None:
            raise
        trained = load_run(folder, data)  # the dataset was moved; what is there now has to fit the model
        return trained, trained.dataset


def without(names: Sequence[str], drop: Sequence[str]) -> tuple[str, ...]:
    """The modalities left.

    Raises:
        ValueError: one that the run does not have, or none is left.
    """
    for name in drop:
        if name not in names:
            raise ValueError(f"unknown modality `{name}`.{nearest(name, names)} The run has: {', '.join(names)}.")
    kept = tuple(name for name in names if name not in drop)
    if not kept:
        raise ValueError("Parameter `--drop` should leave at least one modality. Found none left.")
    return kept


def check_fit(trained: Manifest | ModelInfo, found: Manifest, names: Sequence[str]) -> None:
    """Refuse data that the model can't read.

    Raises:
        ValueError: a modality is missing or of another width, or the labels are of another kind.
    """
    for name in names:
        if name not in found.modalities:
            have = ", ".join(found.modalities)
            raise ValueError(f"Parameter `--data` should have the modality {name}. It has: {have}.")
        ours, theirs = trained.modalities[name].dim, found.modalities[name].dim
        if ours != theirs:
            raise ValueError(f"Modality {name} should be {ours} wide, as in training. Found {theirs}.")
    kinds = [(each.labels.kind, each.labels.outputs) for each in (trained, found)]
    if kinds[0] != kinds[1]:
        expected, other = (f"{task} with {outputs} outputs" for task, outputs in kinds)
        raise ValueError(f"Parameter `--data` should have labels for {expected}, as in training. Found {other}.")
