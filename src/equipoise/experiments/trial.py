"""A short taste of a cell: does it run at all, and how long will it take?"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

from equipoise.experiments.cell import Cell
from equipoise.training.run import run


class _Enough(Exception):
    pass


def estimate_seconds(cell: Cell, limit: float = 0.0) -> float:
    """Train a cell into a folder that is thrown away, and say how long all of it would take.

    The model and the balancer are built, a few samples are scored, and steps are made until the limit is reached; so
    what contradicts itself is found here, before a grid runs.

    Args:
        cell: to be tried.
        limit: seconds to train for; it ends after two steps at least, and after an epoch at most.

    Returns:
        Seconds for all epochs, at the speed of the steps made; validation counts where an epoch was finished. An upper
        bound where ``patience`` may end it earlier.

    Raises:
        ValueError: what `training.run.run` says of it, with the cell's names.
    """
    # The first step is slower than those after it: whatever is made once is made there.
    started = time.perf_counter()
    marks: list[tuple[int, int, float]] = []

    def watch(done: int, total: int, row: Mapping[str, float | int | None] | None) -> None:
        marks.append((done, total, time.perf_counter()))
        if row is not None or (len(marks) > 1 and marks[-1][2] - started >= limit):
            raise _Enough

    train = cell.config.train.model_copy(update={"checkpoint_every": 0})
    config = cell.config.model_copy(update={"train": train, "protocol": "honest"})
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run(config, Path(folder) / "trial", split=cell.split, progress=watch)
        except _Enough:
            pass
        except ValueError as error:
            raise ValueError(f"{cell.kind}: {error}") from None
    (first, total, begun), (last, _, ended) = marks[0], marks[-1]
    steps = max(last - first, 1)
    return (begun - started) + (ended - begun) * total / steps
