"""What may be searched: settings by their dotted names, each with its choices or its range."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from equipoise.experiments.dotted import put
from equipoise.training.arguments import unknown
from equipoise.training.config import RunConfig, make_config

Scalar = str | int | float | bool | None
FIXED = ("data", "seed", "protocol", "threads")
"""Settings that no trial may change."""
WEIGHT = "train.unimodal_weight"


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both in it; whole ones where both are; evenly by their logarithm if ``log``."""

    low: float
    high: float
    log: bool = False


Space = tuple[Scalar, ...] | Range
Search = Mapping[str, Space]


def read_search(where: str, value: Any) -> dict[str, Space | None]:
    """The spaces of a grid's ``search`` key; None takes back what stands below it.

    Raises:
        ValueError: neither choices nor a range, or a setting that is not to be searched.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"Grid key `{where}` should map settings to choices or ranges. Found {value!r}.")
    found: dict[str, Space | None] = {}
    for key, space in value.items():
        if str(key).partition(".")[0] in FIXED:
            raise ValueError(f"Grid key `{where}`: `{key}` can't be searched. The grid sets it for all trials.")
        found[str(key)] = space if space is None or isinstance(space, Range) else _space(f"{where}.{key}", space)
    return found


def default_search(config: RunConfig) -> dict[str, Space]:
    """The learning rate, from a tenth to ten times of the config's: what is searched where nothing is named."""
    return {"train.lr": Range(config.train.lr / 10, config.train.lr * 10, log=True)}


def control_search(search: Search, config: RunConfig, *, weight: bool) -> dict[str, Space]:
    """What a control searches: as its method, without what belongs to the balancer.

    Args:
        search: the method's.
        config: the control's.
        weight: whether the control adds every modality's own loss; then its weight is searched too.
    """
    found = {key: space for key, space in search.items() if key != WEIGHT and key.partition(".")[0] != "balancer"}
    found = found or default_search(config)
    if weight:
        found[WEIGHT] = search.get(WEIGHT, Range(0.03, 3.0, log=True))
    return found


def applied(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """A config with settings laid over it by dotted names.

    Raises:
        ValueError: a setting that the config doesn't have, or a value that it refuses: one line.
    """
    values = config.model_dump(mode="json")
    for key, value in settings.items():
        head, _, rest = key.partition(".")
        if head == "balancer" and not rest.partition(".")[0].isdigit():
            if len(config.balancer) != 1:
                names = ", ".join(each.name for each in config.balancer) or "none"
                raise ValueError(f"Setting `{key}` should count the balancers (`balancer.0.{rest}`). Found {names}.")
            key = f"balancer.0.{rest}"
        put(values, key, value)
    return make_config(values)


def check_search(config: RunConfig, search: Search) -> None:
    """Try every choice and both ends of every range.

    Raises:
        ValueError: as `applied`.
    """
    for key, space in search.items():
        for value in (space.low, space.high) if isinstance(space, Range) else space:
            applied(config, {key: value})


def combinations(search: Search) -> list[dict[str, Scalar]] | None:
    """Every setting there is, the last key fastest; None where a range makes them countless."""
    spaces = [space for space in search.values() if not isinstance(space, Range)]
    if len(spaces) < len(search):
        return None
    return [dict(zip(search, values, strict=True)) for values in itertools.product(*spaces)]


def _space(where: str, value: Any) -> Space:
    if isinstance(value, list | tuple):
        plain = all(each is None or isinstance(each, str | int | float) for each in value)
        if not value or not plain or len({(type(each), each) for each in value}) < len(value):
            raise ValueError(f"Grid key `{where}` should hold distinct words or numbers. Found {value!r}.")
        return tuple(value)
    if not isinstance(value, Mapping):
        raise ValueError(f"Grid key `{where}` should be a list of choices, or `{{low, high, log}}`. Found {value!r}.")
    for key in value:
        if key not in ("low", "high", "log"):
            raise ValueError(f"Grid key `{where}`: {unknown('key', str(key), ('low', 'high', 'log'))}")
    low, high, log = _number(value.get("low")), _number(value.get("high")), value.get("log", False)
    if not isinstance(log, bool) or not (low < high and math.isfinite(high - low)) or (log and low <= 0):
        raise ValueError(
            f"Grid key `{where}` should have numbers `low` < `high`, above 0 if `log` is true. Found {dict(value)!r}."
        )
    return Range(low, high, log)


def _number(value: Any) -> float:
    """YAML reads `1e-4` as a word."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.nan
    try:
        return value if isinstance(value, int | float) else float(value)
    except ValueError:
        return math.nan
