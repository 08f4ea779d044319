"""`equipoise demo`: a plain, a balanced and a multi-loss model on synthetic data whose truth is known."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.console import add_json_flag, print_json, print_table
from equipoise.cli.progress import training_progress

if TYPE_CHECKING:
    from equipoise.report.runs import Run
    from equipoise.report.tables import Cell, Table
    from equipoise.training.config import RunConfig

MODALITIES = ("text", "audio", "vision")
BALANCER = {"name": "ags", "alpha": 3.0, "apply_to": "update"}
BALANCED = "AGS"
# One setting for every row, tuned for none of them: see docs/cli/demo.md.
MODEL = {"name": "LateFusion", "hidden": 32, "encoder": "mean"}
UTTERANCES, EPOCHS, LR = 2000, 15, 5e-3
QUICK_UTTERANCES, QUICK_EPOCHS = 200, 2
OWN = "corr"

ABOUT = f"""\
Generate trimodal utterances whose truth is known, and train on them, for several seeds: the plain model, the
model balanced by {BALANCED}, the plain model with every modality's own loss added (multi-loss), and each modality
alone. Prints one table and what it does and doesn't show; writes runs, plots and the table. Needs no data and no
network."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "demo",
        help="the whole of it on synthetic data",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="where runs, plots and tables go (runs/demo)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds (3)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_UTTERANCES} utterances, {QUICK_EPOCHS} epochs: shows that it runs, no more",
    )
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Generate, train, compare, draw, print."""
    if args.seeds < 1:
        raise ValueError(f"Parameter `--seeds` should be 1 or more. Found {args.seeds}.")
    from equipoise.data import synthetic

    out = Path(args.out)
    data = synthetic(out / "data", n=QUICK_UTTERANCES if args.quick else UTTERANCES, overwrite=True)
    truth = data.manifest.extra["truth"]
    epochs = QUICK_EPOCHS if args.quick else EPOCHS
    results = train_all(configs(str(out / "data"), epochs), out, range(args.seeds))
    table = demo_table(results, truth, epochs)
    pictures = draw(out)
    save(out, table)
    if args.json:
        from equipoise.report.tables import to_records

        print_json(
            {
                "run": str(out),
                "table": to_records(table),
                "truth": truth,
                "results": results,
                "plots": [str(picture) for picture in pictures],
            }
        )
        return 0
    print_table(table)
    print(f"\nRun directory: {out} (plots in {out / 'plots'})")
    return 0


def configs(data: str, epochs: int) -> dict[str, RunConfig]:
    """The runs of the demo by the name of their folder; they differ in what the name says and in nothing else."""
    from equipoise.training.config import make_config

    base = {"data": data, "model": MODEL, "threads": 1}
    train: dict[str, Any] = {"epochs": epochs, "lr": LR, "checkpoint_every": 0}
    made = {
        "plain": make_config({**base, "train": train}),
        "balanced": make_config({**base, "train": train, "balancer": BALANCER}),
        "multi-loss": make_config({**base, "train": {**train, "unimodal_weight": 1.0}}),
    }
    return made | {f"{m}-alone": make_config({**base, "train": train, "modalities": [m]}) for m in MODALITIES}


def train_all(runs: Mapping[str, RunConfig], out: Path, seeds: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Train every config for every seed, anew."""
    from equipoise.training.run import run as run_once
    from equipoise.training.run import run_seeds

    with training_progress(len(runs) * len(seeds)) as start:
        for name, config in runs.items():
            for seed in seeds:
                one = config.model_copy(update={"seed": seed})
                run_once(one, out / name / f"seed-{seed}", resume=False, progress=start(f"{name}, seed {seed}"))
    return {name: run_seeds(config, out / name, seeds) for name, config in runs.items()}


def demo_table(results: Mapping[str, Sequence[Mapping[str, Any]]], truth: Mapping[str, Any], epochs: int) -> Table:
    """One row a training, one for the modalities alone, one for what the truth allows; below it, what it shows."""
    from equipoise.cli.verdict import verdict
    from equipoise.report.results import over_seeds
    from equipoise.report.tables import Table

    names = {"plain": "plain", "balanced": BALANCED, "multi-loss": "multi-loss"}
    rows: list[tuple[Cell, ...]] = []
    for key, name in names.items():
        fused = over_seeds([result["metrics"] for result in results[key]], ("mae", "acc2_pn", "corr"))
        own = [over_seeds([result["modalities"][m] for result in results[key]], (OWN,))[0] for m in MODALITIES]
        rows.append((name, *fused, *own))
    alone = [over_seeds([result["metrics"] for result in results[f"{m}-alone"]], (OWN,))[0] for m in MODALITIES]
    rows.append(("each alone", None, None, None, *alone))
    best = truth["bayes_r2"]
    ceiling = [math.sqrt(best[key]) for key in ("+".join(MODALITIES), *MODALITIES)]
    rows.append(("best possible", None, None, *ceiling))
    seeds = len(results["plain"])
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    title = f"Synthetic data: test figures, {over}, {epochs} epochs"
    columns = ("", "fused mae", "fused acc2_pn", "fused corr", *(f"{m} {OWN}" for m in MODALITIES))
    return Table(title, columns, tuple(rows), (describe(truth), *verdict(results, BALANCED, MODALITIES, OWN)))


def describe(truth: Mapping[str, Any]) -> str:
    """The generator's known shares in a sentence."""
    share = {key: f"{100 * value:.0f} %" for key, value in truth["shares"].items()}
    own = ", ".join(f"{m} alone {share[f'alone_{m}']}" for m in MODALITIES)
    pair = " and ".join(truth["synergy_of"])
    return (
        f"Truth: of the label, {own}, shared by all {share['shared']}, only in the combination of {pair} "
        f"{share['synergy']}, noise {share['noise']}; audio and vision are slow to learn by construction."
    )


def draw(out: Path) -> list[Path]:
    """Loss, gradient norms and each modality's own accuracy and correlation by epoch, into `out/plots`."""
    from equipoise.report.plots import plot_loss, plot_norms, plot_own_accuracy
    from equipoise.report.runs import read_runs

    plain, balanced, multi = (read_runs(out / name) for name in ("plain", "balanced", "multi-loss"))
    pair = {"plain": plain, BALANCED: balanced}
    pictures = plot_loss(pair, out / "plots" / "loss", title="Loss, synthetic data")
    pictures += plot_norms(pair, out / "plots" / "norms", title="Gradient norm of each encoder, synthetic data")
    for metric, word in (("acc2_pn", "accuracy"), (OWN, "correlation")):
        alone = {m: chosen(read_runs(out / f"{m}-alone"), f"valid/{metric}") for m in MODALITIES}
        title = f"Each modality's own {word}, synthetic data"
        pictures += plot_own_accuracy(
            {**pair, "multi-loss": multi}, out / "plots" / f"own_{word}", metric=metric, alone=alone, title=title
        )
    return pictures


def chosen(runs: Sequence[Run], column: str) -> float:
    """The mean over runs of a column at the epoch that each run chose."""
    values = []
    for each in runs:
        assert each.test is not None
        values.append(each.epochs[column][each.epochs["epoch"].index(each.test["epoch"])])
    return math.fsum(values) / len(values)


def save(out: Path, table: Table) -> None:
    """The table as Markdown and as CSV."""
    from equipoise.report.tables import to_csv, to_markdown

    (out / "table.md").write_text(to_markdown(table), encoding="utf-8")
    (out / "table.csv").write_text(to_csv(table), encoding="utf-8")
