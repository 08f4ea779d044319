"""`equipoise extract`: clips and a label file become a dataset; killed anywhere, the same command goes on."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.arguments import pairs
from equipoise.cli.console import add_json_flag, print_json, print_table
from equipoise.cli.engine import add_engine_flags, jobs_of

if TYPE_CHECKING:
    from equipoise.extraction.dataset import Extraction
    from equipoise.extraction.labels import ClipLabels
    from equipoise.extraction.recipe import Recipe

EXAMPLES = """\
labels.csv has a column `file` (relative to CLIPS) and a column `label`; optional ones are id, split, text, start, end
(seconds of a segment), group, speaker, and label_text, label_audio, label_vision.

An extractor's arguments are flags behind its modality: `--audio.bins 40`, `--vision.rate 25`.

examples:
  equipoise extract clips --labels labels.csv --out data/talks
  equipoise extract clips --labels labels.csv --out data/talks --audio egemaps --vision face-mesh --jobs 8
  equipoise extract clips --labels labels.csv --out data/talks --speech pocketsphinx --align words

The same command goes on where it was stopped; what was extracted before is not extracted again."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "extract",
        help="turn a folder of clips and a label file into a dataset",
        epilog=EXAMPLES,
        description="Extract features of audio, faces and words from clips, and write a dataset.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", metavar="CLIPS", help="folder of clips")
    parser.add_argument("--labels", required=True, metavar="FILE", help="CSV or TSV, one row a clip or segment")
    parser.add_argument("--out", required=True, metavar="DIR", help="the new dataset's directory")
    parser.add_argument("--audio", default="log-mel", metavar="NAME", help="log-mel, mfcc, egemaps or none (log-mel)")
    parser.add_argument(
        "--vision", default="face-boxes", metavar="NAME", help="face-boxes, face-mesh or none (face-boxes)"
    )
    parser.add_argument(
        "--text",
        choices=("any", "labels", "sidecar", "none"),
        default="any",
        help="where words come from: the labels, a file beside the clip, or the one and else the other (any)",
    )
    parser.add_argument(
        "--speech",
        default="none",
        metavar="NAME[:PATH]",
        help="where there are no words: pocketsphinx, whisper:DIR (none)",
    )
    parser.add_argument(
        "--align", choices=("none", "words"), default="none", help="average over each spoken word (none)"
    )
    parser.add_argument("--name", help="name in tables (that of --out)")
    parser.add_argument("--map", nargs="+", action="extend", metavar="NAME=COLUMN", help="such as label=sentiment")
    parser.add_argument("--split", metavar="SPLIT", help="the split of all rows")
    parser.add_argument("--split-values", nargs="+", action="extend", metavar="VALUE=SPLIT", help="such as 3=test")
    parser.add_argument(
        "--split-by", choices=("speaker", "group", "none"), help="where no split is given: what no two splits may share"
    )
    parser.add_argument(
        "--fractions", nargs=3, type=float, default=(0.7, 0.1, 0.2), metavar=("TRAIN", "VALID", "TEST"),
        help="shares where no split is given (.7 .1 .2)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of those splits (0)")
    parser.add_argument("--task", choices=("regression", "classification"), help="what the labels are")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="names of the classes in order")
    parser.add_argument("--label-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="label bounds")
    parser.add_argument("--scale", choices=("mosi", "sims"), help="labels in [-3, 3] (mosi) or [-1, 1] (sims)")
    parser.add_argument("--cache", metavar="DIR", help="where features of single clips are kept (OUT.clips)")
    add_engine_flags(parser)
    parser.set_defaults(dry_run=False)
    parser.add_argument("--limit", type=float, default=3600.0, metavar="SECONDS", help="most time for one clip (3600)")
    parser.add_argument("--retry-failed", action="store_true", help="try clips again that have failed before")
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset that is there")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Read the labels, extract, write. Returns 1 where a clip could not be used."""
    from equipoise.cli.extract_progress import extract_progress
    from equipoise.extraction.dataset import extract_dataset

    labels, (recipe, models), jobs = _labels(args), _recipe(args), jobs_of(args)
    if args.jobs is None and args.engine == "local":
        jobs = len(os.sched_getaffinity(0))  # extraction leaves a GPU alone
    found = extract_dataset(
        labels,
        args.out,
        recipe,
        models=models,
        cache=args.cache,
        name=args.name,
        sidecar=args.text in ("any", "sidecar"),
        split_by=args.split_by,
        fractions=args.fractions,
        seed=args.seed,
        jobs=jobs,
        engine=args.engine,
        address=args.address,
        limit_seconds=args.limit,
        retry_failed=args.retry_failed,
        overwrite=args.overwrite,
        watch=extract_progress,
    )
    _show(found, labels, args)
    return int(any(row.status != "used" for row in found.rows))


def _labels(args: argparse.Namespace) -> ClipLabels:
    from dataclasses import replace

    from equipoise.extraction.labels import read_labels

    labels = read_labels(
        args.labels,
        args.clips,
        names=pairs(args.map, "--map"),
        split=args.split,
        split_values=pairs(args.split_values, "--split-values"),
        task=args.task,
        classes=args.classes,
        label_range=None if args.label_range is None else tuple(args.label_range),
        scale=args.scale,
    )
    if args.text == "sidecar":
        labels = replace(labels, clips=tuple(replace(clip, text="") for clip in labels.clips))
    return labels


def _recipe(args: argparse.Namespace) -> tuple[Recipe, tuple[str, ...]]:
    """How clips become features, and where the models for it lie."""
    from equipoise.extraction.choose import choose_recipe, model_paths

    arguments: dict[str, dict[str, Any]] = {}
    for key, value in args.overrides.items():
        part, _, name = key.partition(".")
        arguments.setdefault(part, {})[name] = value
    speech = None if args.speech == "none" else args.speech
    recipe = choose_recipe(
        audio=None if args.audio == "none" else args.audio,
        vision=None if args.vision == "none" else args.vision,
        speech=speech,
        text=args.text != "none",
        align=args.align,
        arguments=arguments,
    )
    return recipe, model_paths(speech, arguments)


def _show(found: Extraction, labels: ClipLabels, args: argparse.Namespace) -> None:
    from equipoise.extraction.report import why_not_used
    from equipoise.report.tables import Table

    dataset, unused = found.dataset, why_not_used(found.rows)
    used = sum(row.status == "used" for row in found.rows)
    notes = [*found.notes, *(f"taken for granted: {line}" for line in labels.assumptions)]
    if args.json:
        print_json({
            **dataset.describe(),
            "clips": {"listed": len(found.rows), "used": used},
            "unused": [{"id": row.clip.id, "file": row.clip.file, "status": row.status, "reason": row.reason}
                       for row in found.rows if row.status != "used"],
            "notes": notes,
            "report": str(found.report),
        })  # fmt: skip
        return
    manifest = dataset.manifest
    rows = tuple(
        (name, each.extractor, each.dim, each.shortest, each.mean, each.longest, each.missing)
        for name, each in manifest.modalities.items()
    )
    counts = ", ".join(f"{name} {count}" for name, count in manifest.splits.items())
    lines = [f"clips: {used} of {len(found.rows)} used ({counts})", *unused, *notes, f"Every clip: {found.report}"]
    columns = ("modality", "extractor", "width", "shortest", "mean", "longest", "missing")
    print_table(Table(f"{manifest.name}, in {Path(dataset.path)}", columns, rows, tuple(lines)))
