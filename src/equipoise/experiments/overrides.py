"""Settings laid over settings, before they are checked as one run config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]
SHORT = {"model": "name", "balancer": "name", "text": "encoder"}
"""What a bare word stands for under these keys of a run config."""


def nested(settings: Settings) -> dict[str, Any]:
    """The same settings without dots in their keys and without bare words.

    Raises:
        ValueError: a dotted key under one that holds no keys.

    >>> nested({"train.lr": 0.1, "train": {"epochs": 3}, "model": "TFN", "balancer.alpha": 0.5})
    {'train': {'epochs': 3, 'lr': 0.1}, 'model': {'name': 'TFN'}, 'balancer': {'alpha': 0.5}}
    """
    found: dict[str, Any] = {}
    # Shallow keys first, so that `train` does not wipe out a `train.lr` that stands before it.
    for key, value in sorted(settings.items(), key=lambda item: str(item[0]).count(".")):
        *parents, last = str(key).split(".")
        node = found
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"Config key `{key}`: `{parent}` holds no keys. Found `{parent} = {node!r}`.")
        short = SHORT.get(last) if not parents else None
        node[last] = {short: value} if short and isinstance(value, str) else _copy(value)
    return found


def lay(under: Settings, over: Settings) -> dict[str, Any]:
    """Settings with others over them, both as `nested` gives them.

    Keys are merged; a ``model`` or ``balancer`` of another name replaces the one below it whole, since its arguments
    are those of another class.

    >>> lay({"balancer": {"name": "ags", "alpha": 1}, "train": {"lr": 1}}, {"balancer": {"name": "agm"}, "train": {}})
    {'balancer': {'name': 'agm'}, 'train': {'lr': 1}}
    """
    found = {key: _copy(value) for key, value in under.items()}
    for key, value in over.items():
        below = found.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and _same_class(key, below, value):
            found[key] = lay(below, value)
        else:
            found[key] = _copy(value)
    return found


def _same_class(key: str, under: Settings, over: Settings) -> bool:
    return key not in ("model", "balancer") or over.get("name", under.get("name")) == under.get("name")


def _copy(value: Any) -> Any:
    return {str(key): _copy(each) for key, each in value.items()} if isinstance(value, Mapping) else value
