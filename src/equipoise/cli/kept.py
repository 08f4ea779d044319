"""What a command computed, kept as JSON under a digest of all that decides it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from equipoise.cli.progress import Callback


def once(folder: Path, stem: str, key: Mapping[str, Any], show: Callback, compute: Callable[[Callback], Any]) -> Any:
    """The result for a key: read from ``folder/stem-<digest>.json``, or computed and written there.

    Args:
        folder: where it is kept.
        stem: what it is.
        key: all that decides the result, as JSON has it.
        show: progress; handed to ``compute``.
        compute: gives plain JSON values.

    Raises:
        OSError: it can't be written.
    """
    from equipoise.training.results import write_json

    file = folder / f"{stem}-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.json"
    kept = read_json(file)
    if kept and kept.get("key") == key and "result" in kept:
        show(1, 1, {})
        return kept["result"]
    write_json(file, {"key": key, "result": compute(show)})
    return json.loads(file.read_text(encoding="utf-8"))["result"]


def read_json(file: Path) -> dict[str, Any] | None:
    """An object, or None where there is none, or half of it is lost."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None
