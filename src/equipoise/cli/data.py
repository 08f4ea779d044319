"""`equipoise data`: import feature files; generate, describe, verify and split datasets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.arguments import pairs
from equipoise.cli.console import add_json_flag, print_json
from equipoise.cli.dataset_table import busy, leakage_lines, show_dataset
from equipoise.cli.generate import add_verb, generate

if TYPE_CHECKING:
    from equipoise.data.splits import By

EXAMPLES = """\
examples:
  equipoise data import unaligned_50.pkl --to data/mosi                  (its format is found by its content)
  equipoise data import features.npz --to data/mine --map audio=mfcc label=y --split-values 1=train 2=valid 3=test
  equipoise data import table.csv --to data/mine --scale mosi

`equipoise list formats` names the formats."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    what = "import, generate, describe, verify and split datasets"
    parser = subparsers.add_parser("data", help=what, description=f"{what.capitalize()}.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="import | generate | describe | verify | split")

    add = verbs.add_parser(
        "import",
        help="read a file or folder in one of the field's formats, write a dataset",
        description="Read a file or folder in one of the field's formats, check it, and write a dataset.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.add_argument("source", metavar="SOURCE", help="file or folder")
    add.add_argument("--to", required=True, metavar="DIR", help="the new dataset's directory")
    add.add_argument("--format", default="auto", help="a format of `equipoise list formats` (found by content)")
    add.add_argument("--name", help="name in tables (the source's)")
    add.add_argument("--modalities", nargs="+", metavar="M", help="modalities to keep (all)")
    add.add_argument("--map", nargs="+", action="extend", metavar="NAME=KEY",
                     help="npz, csv, csd: where to find a modality or column, such as audio=mfcc label=y")  # fmt: skip
    add.add_argument("--split", metavar="SPLIT", help="npz, csv, csd: the split of all rows; csd: or a JSON file")
    add.add_argument(
        "--split-values", nargs="+", action="extend", metavar="VALUE=SPLIT", help="npz, csv: such as 1=train 3=test"
    )
    add.add_argument("--task", choices=("regression", "classification"), help="npz, csv: what the labels are")
    add.add_argument("--classes", nargs="+", metavar="CLASS", help="npz, csv: names of the classes in order")
    add.add_argument("--label-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="npz, csv: label bounds")
    add.add_argument("--scale", choices=("mosi", "sims"), help="labels in [-3, 3] (mosi) or [-1, 1] (sims)")
    add.add_argument("--column", type=int, help="csd: the label column (0)")
    add.add_argument(
        "--context", choices=("prepend", "drop"), help="ur-funny, mustard, hkt: context sentences (prepend)"
    )
    add.add_argument("--fold", help="mustard: 0 to 4, or speaker (0)")
    add.add_argument("--overwrite", action="store_true", help="replace a dataset that is there")
    add_json_flag(add)

    add_verb(verbs)

    describe = verbs.add_parser(
        "describe",
        help="what a dataset holds",
        description="Print what a dataset holds: frames of each modality, labels, splits, and what these share.",
    )
    describe.add_argument("dataset", metavar="DATASET", help="dataset directory")
    add_json_flag(describe)

    verify = verbs.add_parser(
        "verify",
        help="check a dataset's files and look for leakage; exit code 1 on damage",
        description="Check a dataset's files, and look for what its splits share. Exit code 1 on damage.",
    )
    verify.add_argument("dataset", metavar="DATASET", help="dataset directory")
    add_json_flag(verify)

    split = verbs.add_parser(
        "split",
        help="write a dataset with other splits",
        description="Write the samples of a dataset as another one, split anew.",
    )
    split.add_argument("dataset", metavar="DATASET", help="dataset directory")
    split.add_argument("--to", required=True, metavar="DIR", help="the new dataset's directory")
    split.add_argument("--by", choices=("speaker", "group", "none"), help="what no two splits may share (group: video)")
    split.add_argument("--fractions", nargs=3, type=float, default=(0.7, 0.1, 0.2),
                       metavar=("TRAIN", "VALID", "TEST"), help="shares (.7 .1 .2)")  # fmt: skip
    split.add_argument("--seed", type=int, default=0, help="seed (0)")
    split.add_argument("--test-speakers", nargs="+", default=(), metavar="NAME", help="these speakers are the test set")
    split.add_argument("--test-groups", nargs="+", default=(), metavar="NAME", help="these videos are the test set")
    split.add_argument("--keep-test", action="store_true", help="the test rows stay the test rows")
    split.add_argument("--overwrite", action="store_true", help="replace a dataset that is there")
    add_json_flag(split)


def run(args: argparse.Namespace) -> int:
    """Run one verb.

    Returns:
        0; 1 where `verify` found damage.

    Raises:
        ValueError: bad input; one line.
        OSError: a file can't be read or written.

    """
    verbs = {"import": _import, "generate": _generate, "describe": _describe, "verify": _verify, "split": _split}
    return verbs[args.verb](args)


def _import(args: argparse.Namespace) -> int:
    from equipoise.data.checksums import identify
    from equipoise.data.importers import read, write

    options: dict[str, Any] = {
        "map": pairs(args.map, "--map"),
        "split_values": pairs(args.split_values, "--split-values"),
        "label_range": None if args.label_range is None else tuple(args.label_range),
        **{key: getattr(args, key) for key in ("split", "task", "classes", "scale", "column", "context", "fold")},
    }
    source = Path(args.source)
    with busy(f"reading {source}"):
        data = read(source, args.format, **options)
        checksum = identify(source) if source.is_file() else None
    with busy(f"writing {args.to}"):
        dataset = write(
            data,
            args.to,
            name=args.name,
            modalities=args.modalities,
            sha256=checksum.sha256 if checksum else None,
            published=checksum.published if checksum else None,
            overwrite=args.overwrite,
        )
    notes = [f"taken for granted: {line}" for line in data.assumptions]
    if checksum and checksum.published:
        notes.append(f"checksum: {checksum.published}")
    if checksum and checksum.warning:
        notes.append(f"warning: {checksum.warning}")
    return show_dataset(dataset, args.json, notes, {
        "published": checksum.published if checksum else None,
        "warning": checksum.warning if checksum else None,
        "assumptions": list(data.assumptions),
    })  # fmt: skip


def _generate(args: argparse.Namespace) -> int:
    with busy(f"writing {args.to}"):
        dataset, notes = generate(args)
    return show_dataset(dataset, args.json, notes, {"shape": args.shape, "scale": args.scale, "seed": args.seed})


def _describe(args: argparse.Namespace) -> int:
    from equipoise.data import load

    dataset = load(args.dataset)
    published = dataset.manifest.extra.get("published")
    return show_dataset(dataset, args.json, [f"checksum: {published}"] if published else [], {})


def _verify(args: argparse.Namespace) -> int:
    from equipoise.data import DataError, load
    from equipoise.data.leakage import check_leakage

    try:
        dataset = load(args.dataset)
    except DataError as error:  # a dataset that can't be opened is damaged; one that is not there is bad input
        return _damaged(args, [str(error)])
    with busy("checking files"):
        damage = dataset.verify()
    if damage:  # damaged features may be unreadable, and what they share means nothing
        return _damaged(args, damage)
    with busy("looking for leakage"):
        leakage = check_leakage(dataset)
    if args.json:
        print_json({"path": args.dataset, "intact": True, "damage": [], "leakage": leakage.to_json()})
        return 0
    print(f"{len(dataset.manifest.files)} files match their checksums.")
    print("\n".join(leakage_lines(leakage)))
    return 0


def _damaged(args: argparse.Namespace, damage: Sequence[str]) -> int:
    if args.json:
        print_json({"path": args.dataset, "intact": False, "damage": list(damage), "leakage": None})
    else:
        print("\n".join(f"damaged: {line}" for line in damage))
    return 1


def _split(args: argparse.Namespace) -> int:
    from equipoise.data import load
    from equipoise.data.splits import split_dataset

    dataset = load(args.dataset)
    if args.test_speakers and args.test_groups:
        raise ValueError("`--test-speakers` and `--test-groups` can't be used together.")
    implied: By | None = "speaker" if args.test_speakers else "group" if args.test_groups else None
    by: By = args.by or implied or ("speaker" if dataset.speakers else "group" if dataset.groups else "none")
    if implied and by != implied:
        raise ValueError(f"`--test-{implied}s` needs `--by {implied}`. Found `--by {by}`.")
    splits = split_dataset(
        dataset,
        args.fractions,
        by=by,
        seed=args.seed,
        test_units=args.test_speakers or args.test_groups,
        keep_test=args.keep_test,
    )
    new = dataset.with_splits(args.to, splits, overwrite=args.overwrite)
    what = "row by row" if by == "none" else f"no {by} in two splits"
    return show_dataset(new, args.json, [f"split: {what}, seed {args.seed}"], {"by": by, "seed": args.seed})
