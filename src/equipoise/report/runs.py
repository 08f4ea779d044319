"""Read run directories (what `equipoise train` writes) into typed rows."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.training.files import read_json

Columns = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Run:
    """One finished or running training: columns of `metrics.csv` and `steps.csv`, `test.json` where it exists.

    `epochs` and `steps` map a column's name to its values, one a row; an empty field is NaN.
    """

    path: Path
    epochs: Columns
    steps: Columns
    test: dict[str, Any] | None

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names that have a gradient norm on record."""
        columns = [*self.epochs, *self.steps]
        return tuple(dict.fromkeys(name.removeprefix("norm/") for name in columns if name.startswith("norm/")))


def read_run(path: str | Path) -> Run:
    """Read one run directory.

    Raises:
        FileNotFoundError: `path` is no run directory (it holds no `metrics.csv`).
        ValueError: a file in it is broken.
    """
    folder = Path(path)
    if not (folder / "metrics.csv").is_file():
        raise FileNotFoundError(
            f"Not a run directory: {folder} holds no `metrics.csv`. Name the folder `equipoise train` wrote."
        )
    steps = folder / "steps.csv"
    test = folder / "test.json"
    return Run(
        path=folder,
        epochs=read_columns(folder / "metrics.csv"),
        steps=read_columns(steps) if steps.is_file() else {},
        test=read_json(test) if test.is_file() else None,
    )


def read_runs(path: str | Path) -> list[Run]:
    """Read a run directory, or every `seed-N` directory inside `path`, in the order of the seeds.

    Raises:
        FileNotFoundError: `path` is neither.
    """
    return [read_run(folder) for folder in run_folders(path)]


def run_folders(path: str | Path) -> list[Path]:
    """The `seed-N` directories inside `path` in the order of their numbers; `path` itself where there are none."""
    folder = Path(path)
    children = [child for child in folder.iterdir() if child.is_dir()] if folder.is_dir() else []
    matches = [(re.fullmatch(r"seed-(\d+)", child.name), child) for child in children]
    seeds = [(int(match[1]), child) for match, child in matches if match]
    if (folder / "metrics.csv").is_file() or not seeds:
        return [folder]
    return [child for _, child in sorted(seeds)]


def read_columns(path: Path) -> Columns:
    """Columns of a CSV of numbers; an empty field is NaN.

    Raises:
        ValueError: a row of another length, or a field that is no number.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows:
        return {}
    header, *body = rows
    columns: Columns = {name: [] for name in header}
    for line, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: expected {len(header)} fields. Found {len(row)}.")
        for name, field in zip(header, row, strict=True):
            try:
                columns[name].append(float(field) if field else float("nan"))
            except ValueError:
                message = f"{path}, line {line}: column `{name}` should hold numbers. Found {field!r}."
                raise ValueError(message) from None
    return columns
