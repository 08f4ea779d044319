"""What the commands print: tables or JSON on standard output, progress on standard error."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from equipoise.report.tables import Table, to_plain, to_rich
from equipoise.training.files import plain


def add_models_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--models``, which may be given several times."""
    parser.add_argument(
        "--models",
        action="append",
        default=[],
        metavar="DIR",
        help="where the models of recognisers and extractors lie that are told by a path (EQUIPOISE_MODELS)",
    )


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, the same on everything that prints a table."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def print_table(table: Table) -> None:
    """Print a table: drawn by rich on a terminal, plain aligned text elsewhere."""
    if not sys.stdout.isatty():
        print(to_plain(table), end="")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(table.title, style="bold"))
    console.print(to_rich(table))
    for note in table.notes:
        console.print(Text(note))


def print_json(content: Any) -> None:
    """Print JSON that any reader takes: a number that JSON lacks (NaN, infinity) becomes null."""
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    print(json.dumps(plain(content), indent=2, ensure_ascii=ascii_only, allow_nan=False))
