"""A canonical dataset on disk, opened for reading."""

from __future__ import annotations

from os import PathLike


class Dataset:
    """A canonical dataset directory."""


def load(path: str | PathLike[str]) -> Dataset:
    """Open a dataset directory."""
    raise NotImplementedError
