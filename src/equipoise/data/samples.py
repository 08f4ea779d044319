"""``samples.csv``: what is known of each sample besides features and labels."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from equipoise.data.errors import DataError
from equipoise.data.manifest import SPLITS

FILENAME = "samples.csv"
COLUMNS = ("id", "split", "group", "speaker", "text")


def write_samples(folder: Path, columns: Mapping[str, Sequence[str]]) -> None:
    """Write the columns given, one row a sample."""
    with (folder / FILENAME).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)  # the default line end also makes it quote a lone carriage return
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def read_samples(folder: Path, expected: Sequence[str], samples: int) -> dict[str, list[str]]:
    """The columns by name; a `DataError` where they or their number differ from the manifest's."""
    path = folder / FILENAME
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}.") from error
    if header != list(expected) or len(rows) != samples or any(len(row) != len(header) for row in rows):
        raise DataError(
            f"{path} should have the columns {', '.join(expected)} and {samples} full rows, as in its manifest."
        )
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def check_samples(columns: Mapping[str, Sequence[str]], samples: int) -> None:
    """Raise a `DataError` for columns of wrong length, ids that repeat or are empty, unknown or missing splits."""
    for name, values in columns.items():
        if len(values) != samples:
            raise DataError(f"Parameter `{name}s` should have {samples} entries, one a label. Found {len(values)}.")
        for row, value in enumerate(values):
            if not isinstance(value, str) or "\0" in value or len(value) > csv.field_size_limit():
                raise DataError(
                    f"Parameter `{name}s` should hold strings without NUL up to {csv.field_size_limit()} characters. "
                    f"Found {str(value)[:40]!r} in row {row}."
                )
    seen: dict[str, int] = {}
    for row, value in enumerate(columns["id"]):
        if not value:
            raise DataError(f"Parameter `ids` should hold no empty id. Found one in row {row}.")
        if seen.setdefault(value, row) != row:
            raise DataError(f"Parameter `ids` should hold no id twice. Found {value!r} in rows {seen[value]}, {row}.")
    count_splits(columns["split"])


def count_splits(splits: Sequence[str]) -> dict[str, int]:
    """Samples of each split that is used, in the order train, valid, test; train must not be empty."""
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise DataError(f"Parameter `splits` should hold train, valid or test. Found {', '.join(map(repr, unknown))}.")
    counts = {name: splits.count(name) for name in SPLITS if name in splits}
    if "train" not in counts:
        raise DataError("Parameter `splits` should give the split train at least one sample. Found none.")
    return counts
