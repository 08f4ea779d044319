"""`equipoise list`: what there is, by the names that a config and the flags take."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re

from equipoise.cli.console import add_json_flag, print_json, print_table
from equipoise.report.tables import Table, to_records

KINDS = ("presets", "models", "balancers", "metrics", "formats", "shapes", "extractors")
METRICS = {
    "mae": "mean absolute error, on raw predictions",
    "corr": "Pearson correlation, on raw predictions",
    "acc7": "accuracy of the rounded label, clipped to ±3",
    "acc5": "accuracy of the rounded label, clipped to ±2 (CH-SIMS: five intervals)",
    "acc3": "accuracy of the rounded label, clipped to ±1 (CH-SIMS: three intervals)",
    "acc2": "CH-SIMS: label ≤ 0 against > 0",
    "acc2_nn": "label < 0 against ≥ 0, all samples",
    "acc2_pn": "label < 0 against > 0, samples labeled 0 left out",
    "f1": "CH-SIMS: support-weighted F1 of acc2",
    "f1_nn": "support-weighted F1 of acc2_nn",
    "f1_pn": "support-weighted F1 of acc2_pn",
    "accuracy": "share of samples whose class is right",
    "f1_weighted": "F1 of each class, weighted by its samples",
    "f1_macro": "F1 of each class, plain mean",
    "nll": "negative log-likelihood of the right class",
    "ece": "expected calibration error",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "list",
        help="names of presets, models, balancers, metrics, dataset formats, shapes and extractors",
        description="Names of presets, models, balancers, metrics, dataset formats, shapes and extractors.",
    )
    parser.add_argument("kind", nargs="?", default="all", choices=[*KINDS, "all"], help="what to list (all)")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Print one table a kind."""
    builders = {
        "presets": presets, "models": models, "balancers": balancers, "metrics": metrics, "formats": formats,
        "shapes": shapes, "extractors": extractors,
    }  # fmt: skip
    kinds = KINDS if args.kind == "all" else (args.kind,)
    tables = {kind: builders[kind]() for kind in kinds}
    if args.json:
        print_json({kind: to_records(table)["rows"] for kind, table in tables.items()})
        return 0
    for i, table in enumerate(tables.values()):
        if i:
            print()
        print_table(table)
    return 0


def presets() -> Table:
    """Every preset: its name, whose settings they are, for which dataset, and what it trains."""
    from equipoise.training.config import load_config
    from equipoise.training.presets import PRESETS, preset_path

    rows = []
    for name, preset in PRESETS.items():
        config = load_config(preset_path(name), {"data": "-"})
        chain = " + ".join(each.name for each in config.balancer) or "plain"
        rows.append((name, preset.paper, preset.shape or "-", config.model.name, chain, config.text.encoder or "-"))
    columns = ("name", "paper", "shape", "model", "balancer", "text")
    return Table("Presets (equipoise train NAME --data DIR)", columns, tuple(rows))


def models() -> Table:
    """Every model: its name in a config, its class, what it is, where it is from."""
    from equipoise.models import MODELS

    rows = tuple((name, found.__name__, summary(found), paper(found)) for name, found in MODELS.items())
    return Table("Models (--model NAME, --model.ARGUMENT VALUE)", ("name", "class", "what it is", "paper"), rows)


def balancers() -> Table:
    """Every balancer: its name in a config, its class, what it does, which fields of a `Step` it needs, its paper."""
    from equipoise.balancers import BALANCERS

    rows = tuple(
        (name, found.__name__, summary(found), ", ".join(sorted(found.needs)) or "gradients only", paper(found))
        for name, found in BALANCERS.items()
    )
    columns = ("name", "class", "what it does", "needs", "paper")
    return Table("Balancers (--balancer NAME, --balancer.ARGUMENT VALUE)", columns, rows)


def metrics() -> Table:
    """Every metric that a run reports and can select on, and which way is better."""
    from equipoise.metrics import better

    words = {"min": "lower", "max": "higher"}
    rows = tuple((name, meaning, words[better(name)]) for name, meaning in METRICS.items())
    return Table("Metrics (--train.select NAME)", ("name", "what it is", "better"), rows)


def formats() -> Table:
    """Every file format that `equipoise data import` reads."""
    from equipoise.data.importers import FORMATS

    rows = tuple((name, summary(inspect.getmodule(read))) for name, read in FORMATS.items())
    return Table("Dataset formats (equipoise data import --format NAME)", ("name", "what it is"), rows)


def shapes() -> Table:
    """Every dataset of the papers, as they read it."""
    from equipoise.data.shapes import SHAPES

    rows = []
    for name, shape in SHAPES.items():
        frames = {m: "×".join(map(str, shape.images.get(m, (dim,)))) for m, dim in shape.dims.items()}
        widths = ", ".join(f"{m} {shape.steps[m][1]} of {frame}" for m, frame in frames.items())
        samples = "/".join(map(str, shape.splits))
        rows.append((name, widths, samples, f"{shape.classes} classes" if shape.classes else shape.scale, shape.source))
    columns = ("name", "frames, at most", "samples", "labels", "what it is")
    return Table("Shapes (equipoise data generate --shape NAME --to DIR)", columns, tuple(rows))


def extractors() -> Table:
    """Everything that makes features or words of clips."""
    from equipoise.features.extractors import EXTRACTORS
    from equipoise.features.speech import RECOGNISERS

    found = dict(EXTRACTORS)
    found |= {name: ("speech", *where) for name, where in RECOGNISERS.items()}
    rows = []
    for name, (part, module, cls) in found.items():
        what = getattr(importlib.import_module(f"equipoise.features.{module}"), cls)
        arguments = ", ".join(inspect.signature(what).parameters)
        rows.append((name, part, summary(what), arguments or "-"))
    columns = ("name", "part", "what it is", "arguments")
    return Table("Extractors (equipoise extract --PART NAME, --PART.ARGUMENT VALUE)", columns, tuple(rows))


def summary(found: object) -> str:
    """The first sentence of a docstring, on one line."""
    text = " ".join((inspect.getdoc(found) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0].rstrip(".").replace("`", "")


def paper(found: type) -> str:
    """The first paper linked in a class's docstring, with its authors and year where they stand; else nothing."""
    text = " ".join((inspect.getdoc(found) or "").split())
    link = re.search(r"\[([^\]]+)\]\(https?://[^)]+\)(?: \(([^()]*\b(?:19|20)\d\d)\))?", text)
    if link is None:
        return ""
    return f"{link[1]} ({link[2]})" if link[2] else link[1]
