"""Data: one checked dataset on disk, its splits, batches and the built-in generator."""

from __future__ import annotations

from equipoise.data.dataset import Dataset, load
from equipoise.data.errors import DataError
from equipoise.data.loader import Loader
from equipoise.data.manifest import LabelInfo, Manifest, ModalityInfo
from equipoise.data.split import Split
from equipoise.data.synthetic import synthetic
from equipoise.data.writer import write_dataset

__all__ = [
    "DataError",
    "Dataset",
    "LabelInfo",
    "Loader",
    "Manifest",
    "ModalityInfo",
    "Split",
    "load",
    "synthetic",
    "write_dataset",
]
