"""Small files that belong to a larger source: one sample's features, a table of entries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.importers._common import Array, frames


def load_json(path: Path) -> Any:
    """The content of a JSON file, or a line that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.") from None


def load_array(path: Path, where: str) -> Array:
    """One sample's ``[T, d]`` from ``.npy``, or from an ``.npz`` with one array (or one called ``features``)."""
    if not path.is_file():
        raise DataError(f"{where}: no such file {path}.")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            array = loaded
        else:
            with loaded as archive:
                names = archive.files
                if "features" not in names and len(names) != 1:
                    raise DataError(f"{where}: {path} should hold one array or `features`. Found: {', '.join(names)}.")
                array = archive["features" if "features" in names else names[0]]
    except DataError:
        raise
    except Exception as error:
        # zipfile, numpy and zlib each raise their own on a damaged or pickled file
        raise DataError(f"{where}: {path} is not a plain .npy or .npz file: {' '.join(str(error).split())}") from None
    return frames(array[0] if array.ndim == 3 and len(array) == 1 else array, f"{where}: {path}")
