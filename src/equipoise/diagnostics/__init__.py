"""Diagnostics: what a trained model leans on, and what it can do without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equipoise.diagnostics.auditing import audit

__all__ = ["audit"]


def __getattr__(name: str) -> Any:
    # Only when it is asked for: the parts of this room are used one by one as well.
    if name == "audit":
        from equipoise.diagnostics.auditing import audit

        return audit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
