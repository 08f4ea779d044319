from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.models.builders import DIMS
from tests.training.saved_models import info

from equipoise.data import Dataset
from equipoise.data.synthetic import synthetic
from equipoise.models import LMF, LateFusion
from equipoise.training.pretrained import save_pretrained

SMALL = {
    "n": 60,
    "dims": {"text": 6, "audio": 5, "vision": 4},
    "lengths": {"text": (1, 4), "audio": (2, 6), "vision": (1, 5)},
}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """42 training, 6 validation and 12 test utterances with labels in [-3, 3]."""
    return synthetic(tmp_path_factory.mktemp("data") / "regression", text=True, **SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same with three classes."""
    return synthetic(tmp_path_factory.mktemp("data") / "classes", task="classification", **SMALL)  # type: ignore[arg-type]


@pytest.fixture
def make_model(dataset: Dataset) -> Callable[..., LateFusion]:
    """Models with equal initial weights."""

    def make(**arguments: object) -> LateFusion:
        torch.manual_seed(0)
        dims = {name: info.dim for name, info in dataset.manifest.modalities.items()}
        settings: dict[str, object] = {"hidden": 4, "encoder": "mean", "dropout": 0.0, **arguments}
        return LateFusion(dims=dims, **settings)  # type: ignore[arg-type]

    return make


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a small model that was saved."""
    torch.manual_seed(0)
    return save_pretrained(LMF(dims=DIMS, hidden=4), tmp_path / "saved", info())
