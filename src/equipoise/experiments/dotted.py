"""Dotted keys that count in lists: `balancer.0.alpha`."""

from __future__ import annotations

import itertools
from typing import Any


def put(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``values["a"]["b"] = value`` for ``"a.b"``; a number counts in a list. What is not there is made.

    Raises:
        ValueError: a key inside what holds none, or a number beyond a list.
    """
    *parents, last = dotted.split(".")
    node: Any = values
    for key, following in itertools.pairwise([*parents, last]):
        if isinstance(node, dict):
            child = node.get(key)
            if isinstance(child, str) and not following.isdigit():
                child = {"name": child}
            node[key] = child = {} if child is None else child
            node = child
        else:
            node = _entry(node, key, dotted)
    if isinstance(node, list):
        _entry(node, last, dotted)
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ValueError(f"Key `{dotted}` should lie in a mapping or a list. Found {node!r}.")


def remove(values: dict[str, Any], dotted: str) -> None:
    """Take an entry out of a list: ``"balancer.0"``.

    Raises:
        ValueError: no such entry.
    """
    parent, _, last = dotted.rpartition(".")
    node: Any = values
    for key in parent.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    _entry(node, last, dotted)
    del node[int(last)]


def _entry(node: Any, key: str, dotted: str) -> Any:
    if not isinstance(node, list) or not key.isdigit() or int(key) >= len(node):
        raise ValueError(f"Key `{dotted}` should count in a list. Found {node!r}.")
    return node[int(key)]
