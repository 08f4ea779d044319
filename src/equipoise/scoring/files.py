"""Scores as a file: CSV, JSON or Parquet, whole or absent."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from equipoise.scoring.result import ClipScore
from equipoise.scoring.rows import flat_columns, flat_rows
from equipoise.scoring.score import output_names
from equipoise.training.files import replace_file
from equipoise.training.model_info import ModelInfo

SUFFIXES = (".csv", ".json", ".parquet")


def check_file(path: Path) -> None:
    """Refuse early what `write_scores` could not write late.

    Raises:
        ValueError: a name with another ending, or pyarrow is missing.
        FileNotFoundError: there is no such folder.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"Scores are written as {', '.join(SUFFIXES)}. Found the name {path.name}.")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError('Parquet needs pyarrow: pip install "equipoise[parquet]".')
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} for {path.name}. Make it first.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Give the name of a file.")


def write_scores(path: Path, scores: Sequence[ClipScore], info: ModelInfo, model: str) -> None:
    """Write scores as the ending says: ``.csv`` and ``.parquet`` one row a score, ``.json`` with all there is.

    Raises:
        OSError: the disk is full; the file is as it was.
    """
    if path.suffix == ".json":
        text = json.dumps(to_json(scores, info, model), indent=1, ensure_ascii=False) + "\n"
        replace_file(path, text.encode())
        return
    rows = flat_rows(scores, info)
    if path.suffix == ".csv":
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(flat_columns(info)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        replace_file(path, table.getvalue().encode())
        return
    import pyarrow as pa
    import pyarrow.parquet as parquet

    kinds = {str: pa.string(), float: pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in flat_columns(info).items()])
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    replace_file(path, buffer.getvalue())


def to_json(scores: Sequence[ClipScore], info: ModelInfo, model: str) -> dict[str, Any]:
    """Plain JSON values: the model, what it says, and each `ClipScore`."""
    return {
        "model": model,
        "kind": info.labels.kind,
        "outputs": list(output_names(info)),
        "range": None if info.labels.range is None else list(info.labels.range),
        "modalities": list(info.modalities),
        "clips": [score.to_json() for score in scores],
    }
