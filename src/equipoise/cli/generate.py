"""`equipoise data generate`: a generated dataset of the exact shape of one of the papers'."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from equipoise.cli.console import add_json_flag

if TYPE_CHECKING:
    from equipoise.data import Dataset


def add_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "generate",
        help="write generated data of the exact shape of a dataset of the papers",
        description="Write generated data of the exact shape of a dataset of the papers: to try things out, no more.",
    )
    parser.add_argument("--shape", required=True, metavar="NAME", help="a shape of `equipoise list shapes`")
    parser.add_argument("--to", required=True, metavar="DIR", help="the new dataset's directory")
    parser.add_argument("--scale", type=float, default=1.0, metavar="S", help="share of the samples, nothing else (1)")
    parser.add_argument("--seed", type=int, default=0, help="seed (0)")
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset that is there")
    add_json_flag(parser)


def generate(args: argparse.Namespace) -> tuple[Dataset, list[str]]:
    """The dataset that was written, and what is uncertain about its shape.

    Raises:
        ValueError: bad input; one line.
    """
    from equipoise.data.shapes import SHAPES
    from equipoise.data.shapes import generate as write

    dataset = write(args.to, args.shape, scale=args.scale, seed=args.seed, overwrite=args.overwrite)
    shape = SHAPES[args.shape]
    return dataset, [f"shape of: {shape.source}", *([f"uncertain: {shape.doubt}"] if shape.doubt else [])]
