"""What is compared: datasets × models × methods × seeds, each a name and the settings that it lays over a base."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equipoise.balancers import BALANCERS
from equipoise.experiments.overrides import Settings, lay, nested
from equipoise.experiments.search import read_search
from equipoise.experiments.tuning import Tuning, make_tuning, shown
from equipoise.models import MODELS
from equipoise.training.arguments import unknown
from equipoise.training.config import MAX_SEED, ModelConfig, read_yaml
from equipoise.training.presets import find_config

SEEDS = (0, 1, 2, 3, 4)
KEYS = ("base", "datasets", "models", "methods", "seeds", "controls", "tuning")
PLAIN = "plain"


@dataclass(frozen=True)
class Grid:
    """A comparison, not yet checked against the data.

    Attributes:
        datasets: ``{name: settings}``, with ``data`` in each.
        models: ``{name: settings}``, with ``model.name`` in each.
        methods: ``{name: settings}``, with ``balancer`` in each; a plain one has none.
        seeds: of every training.
        base: settings under all of them, as `nested` gives them.
        controls: whether each modality alone, the plain model and the plain model with every modality's own loss are
            trained too.
        tuning: how settings are searched before anything is compared; None where they are not. What is searched stands
            in the settings as ``search``.
    """

    datasets: Mapping[str, Settings]
    models: Mapping[str, Settings]
    methods: Mapping[str, Settings]
    seeds: tuple[int, ...] = SEEDS
    base: Settings = field(default_factory=dict)
    controls: bool = True
    tuning: Tuning | None = None


def load_grid(path: str | Path | None = None, given: Mapping[str, Any] | None = None) -> Grid:
    """Read a grid from a YAML file, with what a command line gives over it.

    Args:
        path: the file; None for none.
        given: keys of the file that replace its own; ``base`` is laid over the file's.

    Raises:
        FileNotFoundError: no such file, nor a preset that it starts from.
        ValueError: no YAML, an unknown key or name, an axis without entries: one line with the nearest valid name.
    """
    try:
        values = {} if path is None else read_yaml(Path(path))
    except ValueError as error:
        raise ValueError(shown(str(error))) from None  # it may quote the URL of a database
    return make_grid({**values, **(given or {}), "base": _base(values.get("base"), (given or {}).get("base"))})


def make_grid(values: Mapping[str, Any]) -> Grid:
    """Check a mapping with the keys of a grid file.

    Raises:
        ValueError: as `load_grid`.
    """
    for key in values:
        if key not in KEYS:
            raise ValueError(unknown("grid key", str(key), KEYS))
    controls = values.get("controls", True)
    if not isinstance(controls, bool):
        raise ValueError(f"Grid key `controls` should be true or false. Found `controls = {controls!r}`.")
    base = _base(values.get("base"), None)
    tuning = make_tuning(values.get("tuning"))
    model = base.get("model", {}).get("name") or ModelConfig().name
    grid = Grid(
        datasets={name: _dataset(name, each) for name, each in _axis(values, "datasets").items()},
        models={name: _model(name, each) for name, each in _axis(values, "models", model).items()},
        methods={name: _method(name, each) for name, each in _axis(values, "methods", PLAIN).items()},
        seeds=_seeds(values.get("seeds", SEEDS)),
        base=base,
        controls=controls,
        tuning=tuning,
    )
    entries = {
        "base": base,
        **{
            f"{axis}.{name}": each
            for axis in ("datasets", "models", "methods")
            for name, each in getattr(grid, axis).items()
        },
    }
    if tuning is None and (where := next((name for name, each in entries.items() if "search" in each), None)):
        raise ValueError(f"Grid key `{where}.search` needs `tuning: {{trials: N}}` beside the axes. Found none.")
    return grid


def _axis(values: Mapping[str, Any], key: str, default: str | None = None) -> dict[str, Any]:
    """``{name: settings}`` from a mapping, a list of names, or one name."""
    found = values.get(key, default)
    if isinstance(found, str):
        found = [found]
    if isinstance(found, list | tuple):
        named: dict[str, Any] = {}
        for each in found:
            pairs = each if isinstance(each, Mapping) else {each: None}
            function = pairs.get("function") if key == "models" else None
            if isinstance(function, str):  # a model without a name of its own
                pairs = {function.rpartition(":")[2]: pairs}
            for name, settings in pairs.items():
                if name in named:
                    raise ValueError(f"Grid key `{key}` names `{name}` twice. Give the entries different names.")
                named[name] = settings
        found = named
    if not isinstance(found, Mapping) or not found:
        raise ValueError(
            f"Grid key `{key}` should hold at least one name, or names with settings. Found `{key} = {found!r}`."
        )
    for name in found:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"Grid key `{key}` should hold names. Found {name!r}: put it in quotes.")
    return dict(found)


def _dataset(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {"data": name}
    if isinstance(value, str):
        return {"data": value}
    settings = _settings("datasets", name, value)
    if not isinstance(settings.get("data"), str):
        raise ValueError(f"Grid key `datasets.{name}` should say where it lies: `data: DIR`. Found none.")
    return settings


def _model(name: str, value: Any) -> dict[str, Any]:
    settings = _settings("models", name, {"model": value} if isinstance(value, str) else value)
    model = settings.setdefault("model", {})
    if isinstance(model, Mapping):
        function = settings.pop("function", None) or model.get("function") or (name if ":" in name else None)
        if function is not None:
            settings["model"] = model = {"name": function, **model}
            model.pop("function", None)
    if isinstance(model, Mapping) and "name" not in model:
        _known("model", name, "models", MODELS)
        settings["model"] = {"name": name, **model}
    return settings


def _method(name: str, value: Any) -> dict[str, Any]:
    settings = _settings("methods", name, {"balancer": value} if isinstance(value, str) else value)
    balancer = settings.setdefault("balancer", {})
    if isinstance(balancer, Mapping) and "name" not in balancer:
        _known("method", name, "methods", [*BALANCERS, PLAIN])
        settings["balancer"] = {"name": name, **balancer}
    return settings


def _known(kind: str, name: str, axis: str, valid: Collection[str]) -> None:
    if name not in valid:
        what = "model.name" if kind == "model" else "balancer"
        raise ValueError(f"Grid key `{axis}`: {unknown(kind, name, valid)} For a name of your own set `{what}` in it.")


def _settings(axis: str, name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"Grid key `{axis}.{name}` should be a mapping of config keys. Found {value!r}.")
    if "seed" in value:
        raise ValueError(f"Grid key `{axis}.{name}` sets `seed`. The seeds of all trainings stand under `seeds`.")
    return _searched(nested(value), f"{axis}.{name}.search")


def _searched(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """With the spaces of ``search`` read; they are laid over one another as all settings are."""
    if "search" in settings:
        settings["search"] = read_search(where, settings["search"])
    return settings


def _seeds(value: Any) -> tuple[int, ...]:
    found = [value] if isinstance(value, int) else value
    whole = isinstance(found, list | tuple) and all(type(each) is int and 0 <= each <= MAX_SEED for each in found)
    if not whole or not found or len(set(found)) < len(found):
        raise ValueError(f"Grid key `seeds` should hold distinct seeds, from 0 to {MAX_SEED}. Found {value!r}.")
    return tuple(found)


def _base(value: Any, over: Any) -> dict[str, Any]:
    settings = {"from": value} if isinstance(value, str) else value or {}
    if not isinstance(settings, Mapping):
        raise ValueError(f"Grid key `base` should be a config file, a preset or config keys. Found {value!r}.")
    settings = dict(settings)
    start = settings.pop("from", None)
    under = {} if start is None else nested(read_yaml(find_config(str(start))))
    for key in ("data", "seed"):
        if key in settings:
            axis = {"data": "datasets", "seed": "seeds"}[key]
            raise ValueError(f"Grid key `base` sets `{key}`. That stands under `{axis}`.")
        under.pop(key, None)
    return _searched(lay(lay(under, nested(settings)), nested(over or {})), "base.search")
