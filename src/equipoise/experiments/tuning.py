"""How settings are searched before anything is compared: equally often for every method, on validation data alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from equipoise.training.arguments import unknown
from equipoise.training.config import MAX_SEED

Sampler = Literal["tpe", "random", "grid"]


@dataclass(frozen=True, slots=True)
class Tuning:
    """The ``tuning`` of a grid.

    Attributes:
        trials: of every method and control, on each dataset and model.
        seed: of what is proposed, and the first seed that trials train on, but for those of the comparison.
        metric: of the validation split, that chooses; None for the one that chooses among epochs.
        storage: URL of the database that keeps the studies; None for a SQLite file among the results.
        epochs: of a trial; None for those of the comparison.
        sampler: ``"tpe"``, ``"random"`` or ``"grid"``. Where there are only choices, and no more of them than trials,
            it is always the grid.
    """

    trials: int
    seed: int = 0
    metric: str | None = None
    storage: str | None = field(default=None, repr=False)  # it may hold a password
    epochs: int | None = None
    sampler: Sampler = "tpe"


def make_tuning(value: Any) -> Tuning | None:
    """Read the ``tuning`` key of a grid; a number is that of the trials.

    Raises:
        ValueError: an unknown key, or a value that it can't have.
    """
    if value is None:
        return None
    values = {"trials": value} if isinstance(value, int) else value
    if not isinstance(values, Mapping):
        raise ValueError(f"Grid key `tuning` should be a number of trials, or settings. Found {shown(repr(value))}.")
    for key in values:
        if str(key) not in (names := [each.name for each in fields(Tuning)]):
            raise ValueError(unknown("grid key", str(key), names, prefix="tuning."))
    wanted = {
        "trials": ("a whole number, 1 or more", _whole(values.get("trials"), 1, MAX_SEED)),
        "seed": (f"a seed, from 0 to {MAX_SEED}", _whole(values.get("seed", 0), 0, MAX_SEED)),
        "epochs": ("a whole number, 1 or more", values.get("epochs") is None or _whole(values["epochs"], 1, MAX_SEED)),
        "metric": ("a metric's name", isinstance(values.get("metric", ""), str | None)),
        "storage": ("a database's URL", isinstance(values.get("storage", ""), str | None)),
        "sampler": (f"one of {', '.join(get_args(Sampler))}", values.get("sampler", "tpe") in get_args(Sampler)),
    }
    for key, (what, right) in wanted.items():
        if not right:
            raise ValueError(f"Grid key `tuning.{key}` should be {what}. Found {shown(repr(values.get(key)))}.")
    return Tuning(**values)


def shown(url: str) -> str:
    """A URL, or a text with one in it, without its password.

    >>> shown("postgresql://ada:secret@db/trials?sslmode=require")
    'postgresql://ada:***@db/trials?sslmode=require'
    """
    url = re.sub(r"(://[^:/@]*:).*@", r"\1***@", url)
    return re.sub(r"(password=)[^&]*", r"\1***", url)


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high
