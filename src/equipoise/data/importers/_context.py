"""Utterances with the sentences before them: one rule for all layouts that have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.importers._common import Array, frames

CONTEXTS = ("prepend", "drop")


def checked_context(context: str) -> str:
    """The setting, if it is one."""
    if context not in CONTEXTS:
        raise DataError(f"Parameter `context` should be one of {', '.join(CONTEXTS)}. Found `context = {context!r}`.")
    return context


def join_text(context: str, before: Sequence[str], utterance: str) -> str:
    """The transcript of a sample: context sentences, a space, the utterance; or the utterance alone."""
    sentences = [*before, utterance] if context == "prepend" else [utterance]
    return " ".join(s.strip() for s in sentences if s.strip())


def join_frames(context: str, before: Any, utterance: Any, where: str) -> Array:
    """``[T_c + T_u, d]``: the frames of the context sentences, then those of the utterance; or the latter alone.

    ``before`` is one ``[T, d]`` or a list of them, one a sentence.
    """
    parts = []
    if context == "prepend" and before is not None:
        nested = not isinstance(before, np.ndarray) or before.dtype == object or before.ndim == 3
        sentences = list(before) if nested else [before]
        parts = [frames(s, f"{where}: context sentence {i}") for i, s in enumerate(sentences) if len(s)]
    parts.append(frames(utterance, f"{where}: utterance"))
    filled = [part for part in parts if len(part)]
    if not filled:
        return parts[-1]
    widths = {part.shape[1] for part in filled}
    if len(widths) > 1:
        raise DataError(f"{where}: frames disagree in width: {', '.join(map(str, sorted(widths)))}.")
    return np.concatenate(filled)
