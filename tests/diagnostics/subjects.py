"""Models written as formulas, whose diagnosis can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from equipoise.diagnostics.scores import Metric
from equipoise.diagnostics.subject import Mix, Subject, Task

Floats = npt.NDArray[np.float64]


def formula(
    function: Callable[..., Any],
    values: Mapping[str, Floats],
    target: npt.NDArray[Any],
    *,
    task: Task = "regression",
    metric: Metric | None = None,
) -> Subject:
    """A function of one number (or vector) a modality, by name; what is absent is 0."""

    def answer(mix: Mix) -> Floats:
        count = max((len(rows) for rows in mix.values() if rows is not None), default=1)
        given = {
            name: np.zeros((count, *value.shape[1:])) if (rows := mix[name]) is None else value[rows]
            for name, value in values.items()
        }
        return np.asarray(function(**given), dtype=np.float64)

    return Subject(tuple(values), target, task, answer, metric)


def signs(count: int, names: str) -> dict[str, Floats]:
    """Every combination of signs equally often, so that products have mean 0 exactly; ``count`` times each."""
    grid = np.stack(np.meshgrid(*[[-1.0, 1.0]] * len(names), indexing="ij")).reshape(len(names), -1)
    return dict(zip(names, np.tile(grid, count), strict=True))
