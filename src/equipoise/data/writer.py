"""Write a canonical dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from equipoise.data.dataset import Dataset


def write_dataset(
    path: str | PathLike[str],
    *,
    name: str,
    source: str,
    task: Literal["regression", "classification"],
    modalities: Mapping[str, Iterable[npt.NDArray[Any]]],
    labels: npt.NDArray[Any],
    ids: Sequence[str],
    splits: Sequence[str],
    label_range: tuple[float, float] | None = None,
    classes: Sequence[str] | None = None,
    scale: Literal["mosi", "sims"] | None = None,
    target_names: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    speakers: Sequence[str] | None = None,
    unimodal_labels: Mapping[str, npt.NDArray[Any]] | None = None,
    extractor: Mapping[str, str] | None = None,
    synthetic: bool = False,
    extra: Mapping[str, object] | None = None,
    arrays: Mapping[str, npt.NDArray[Any]] | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Validate and write a dataset directory, then load it."""
    raise NotImplementedError
