"""`equipoise train`: a config and flags in, a run directory and a table out."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.console import add_json_flag, print_json, print_table
from equipoise.cli.progress import training_progress

if TYPE_CHECKING:
    from equipoise.training.config import RunConfig

EXAMPLES = """\
Every setting of the config is a flag, `--section.name VALUE`; flags go over the file.

examples:
  equipoise train --data data/mosi --model AGSSMoE --balancer ags --balancer.alpha 0.05
  equipoise train run.yaml --train.epochs 10 --seeds 0 1 2 3 4
  equipoise train run.yaml --balancer plain --out runs/plain
  equipoise train glomo-mosi --data data/mosi        (a preset of `equipoise list presets`)

The same command resumes a run that was stopped, and shows one that is finished."""

SETTINGS = {
    "data": ("DIR", "dataset directory"),
    "modalities": ("A,B", "modalities to use (all of the dataset)"),
    "model": ("NAME", "model, see `equipoise list models`"),
    "balancer": ("NAME", "balancer, see `equipoise list balancers`; `plain` for none"),
    "text": ("ENCODER", "text encoder on the transcripts: a path, a name, `minilm`, or `none`"),
    "protocol": ("NAME", "`honest` (default), or `paper`, which also reports the best on test"),
    "threads": ("N", "CPU threads"),
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train a model on a dataset",
        epilog=EXAMPLES,
        description="Train a model, choose its epoch on validation data, score it once on test, write a run directory.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="?", metavar="RUN.YAML", help="config file or preset; defaults fill the rest")
    parser.add_argument("--out", metavar="DIR", help="run directory (runs/DATASET-MODEL-BALANCER)")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, metavar="N", help="one seed")
    seeds.add_argument("--seeds", type=int, nargs="+", metavar="N", help="several; each gets DIR/seed-N")
    for name, (metavar, text) in SETTINGS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_argument("--no-resume", action="store_true", help="start anew in DIR")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Train, draw, and print the table."""
    from equipoise.report.results import result_table
    from equipoise.training.config import load_config
    from equipoise.training.presets import find_config

    given = {name: value for name in (*SETTINGS, "seed") if (value := getattr(args, name)) is not None}
    file = None if args.config is None else find_config(args.config)
    config = load_config(file, {**args.overrides, **given})
    out = Path(args.out) if args.out else default_out(config)
    results = train(config, out, args.seeds, resume=not args.no_resume)
    if os.environ.get("RANK", "0") != "0":  # one process of several speaks for all
        return 0
    if args.json:
        print_json({"run": str(out), "results": results, "plots": [str(picture) for picture in draw(out)]})
        return 0
    print_table(result_table(results))
    print(f"\nRun directory: {out}")
    draw(out)
    return 0


def train(config: RunConfig, out: Path, seeds: list[int] | None, *, resume: bool) -> list[dict[str, Any]]:
    """Run one config for its own seed or for several, and show the progress."""
    from equipoise.training.run import run as run_once
    from equipoise.training.run import run_seeds

    check_layout(out, seeds)
    with training_progress(len(seeds or [0]), config.train.select) as start:
        if seeds is None:
            return [run_once(config, out, resume=resume, progress=start(f"seed {config.seed}"))]
        check_seeds(seeds)
        for seed in seeds:
            one = config.model_copy(update={"seed": seed})
            run_once(one, out / f"seed-{seed}", resume=resume, progress=start(f"seed {seed}"))
    return run_seeds(config, out, seeds)  # every seed is finished: this collects them and writes their summary


def check_seeds(seeds: list[int]) -> None:
    """Refuse negative seeds and repeated ones.

    Raises:
        ValueError: there is one.
    """
    from equipoise.training.config import MAX_SEED

    if min(seeds) < 0 or max(seeds) > MAX_SEED or len(set(seeds)) < len(seeds):
        found = " ".join(map(str, seeds))
        raise ValueError(f"Parameter `--seeds` should be distinct, from 0 to {MAX_SEED}. Found {found}.")


def check_layout(out: Path, seeds: list[int] | None) -> None:
    """Refuse to mix one run and runs for several seeds in a directory: what reads it later would see the one alone.

    Raises:
        ValueError: the directory holds the other.
    """
    one = (out / "config.yaml").is_file()
    several = any(child.is_dir() for child in out.glob("seed-*")) if out.is_dir() else False
    if seeds is not None and one:
        raise ValueError(f"{out} holds a run for one seed. For several choose another directory: `--out DIR`.")
    if seeds is None and several and not one:
        raise ValueError(f"{out} holds runs for several seeds. For one choose another directory: `--out DIR`.")


def default_out(config: RunConfig) -> Path:
    """`runs/DATASET-MODEL-BALANCER`, so that the same command finds its run again."""
    balancers = "+".join(each.name for each in config.balancer) or "plain"
    model = config.model.name.rpartition(":")[2]  # of a function's place, its name
    return Path("runs") / f"{Path(config.data).resolve().name}-{model}-{balancers}"


def draw(out: Path) -> list[Path]:
    """Plots of a run, or of all its seeds, into `out/plots`."""
    from equipoise.report.plots import plot_loss, plot_norms, plot_own_accuracy
    from equipoise.report.runs import read_runs

    runs = read_runs(out)
    groups = {out.name: runs}
    pictures = plot_loss(groups, out / "plots" / "loss")
    if runs[0].modalities:
        pictures += plot_norms(groups, out / "plots" / "norms")
        pictures += plot_own_accuracy(groups, out / "plots" / "own", metric=own_metric(runs[0].epochs))
    return pictures


def own_metric(columns: Iterable[str]) -> str:
    """The metric to draw for each modality: an accuracy where there is one, else the correlation."""
    found = {name.rpartition("/")[2] for name in columns if name.startswith("valid/")}
    for name in ("accuracy", "acc2_pn", "acc2", "corr", "mae"):
        if name in found:
            return name
    raise ValueError("`metrics.csv` should hold validation metrics. Found none: the file is damaged.")
