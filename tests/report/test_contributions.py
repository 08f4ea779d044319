from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from equipoise.data import Dataset, synthetic
from equipoise.models import LateFusion
from equipoise.report.contributions import Contributions, contribution_table, contributions
from equipoise.report.tables import Spread
from equipoise.training.evaluate import evaluate

DIMS = {"text": 6, "audio": 5, "vision": 4}
NAMES = tuple(DIMS)


@pytest.fixture(scope="module", params=["regression", "classification"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return synthetic(tmp_path_factory.mktemp("data") / "small", n=60, dims=DIMS, task=request.param)


@pytest.fixture(scope="module")
def found(data: Dataset) -> Contributions:
    return contributions(model(data), data.split("test"), NAMES, data.split("train"))


def model(data: Dataset, names: tuple[str, ...] = NAMES) -> LateFusion:
    torch.manual_seed(0)
    dims = {name: DIMS[name] for name in names}
    return LateFusion(dims=dims, outputs=data.manifest.labels.outputs, hidden=4, encoder="mean").eval()


def test_each_subset_is_scored_as_an_evaluation_without_the_rest(data: Dataset, found: Contributions) -> None:
    assert found.metric == ("mae" if data.manifest.task == "regression" else "accuracy")
    assert len(found.subsets) == 7
    for kept, score in found.subsets.items():
        names = [name for name in NAMES if name in kept]
        whole = evaluate(model(data), data.split("test"), modalities=names, quiet=True)
        assert score == whole.metrics[found.metric]


def test_the_constant_is_the_best_one_by_the_training_labels(data: Dataset, found: Contributions) -> None:
    train, test = data.split("train").targets, data.split("test").targets
    if data.manifest.task == "regression":
        assert found.constant == pytest.approx(np.abs(test - np.median(train)).mean(), abs=1e-6)
    else:
        assert found.constant == np.mean(test == np.bincount(train).argmax())


def test_shapley_values_are_mean_gains_over_all_orders_of_joining(found: Contributions) -> None:
    better = -1 if found.metric == "mae" else 1
    worth = {frozenset[str](): 0.0}
    worth |= {kept: better * (score - found.constant) for kept, score in found.subsets.items()}
    for name in NAMES:
        gains = []
        for order in permutations(NAMES):
            before = frozenset(order[: order.index(name)])
            gains.append(worth[before | {name}] - worth[before])
        assert found.shapley[name] == pytest.approx(np.mean(gains), abs=1e-12)
    assert sum(found.shapley.values()) == pytest.approx(better * (found.full - found.constant), abs=1e-12)


def test_one_modality_has_the_whole_way_to_itself(data: Dataset) -> None:
    found = contributions(model(data, ("audio",)), data.split("test"), ("audio",), data.split("train"))
    better = -1 if found.metric == "mae" else 1
    assert found.shapley == {"audio": pytest.approx(better * (found.full - found.constant))}
    assert np.isnan(found.loss_without("audio"))
    assert contribution_table([found]).rows[0][2] is None


def kept(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_the_table_by_hand() -> None:
    one = Contributions("mae", 1.0, {kept("a"): 0.8, kept("b"): 0.9, kept("a", "b"): 0.5}, {"a": 0.3, "b": 0.2})
    two = Contributions("mae", 1.0, {kept("a"): 0.6, kept("b"): 0.7, kept("a", "b"): 0.7}, {"a": 0.2, "b": 0.1})
    table = contribution_table([one, two])
    assert table.columns == ("modality", "mae alone", "worse without it", "Shapley value")
    (a, alone, without, value), (b, *_) = table.rows
    assert (a, b) == ("a", "b")
    for cell, mean, low in ((alone, 0.7, 0.6), (without, (0.4 + 0.0) / 2, 0.0), (value, 0.25, 0.2)):
        assert isinstance(cell, Spread)
        assert cell.mean == pytest.approx(mean)
        assert cell.sd == pytest.approx(abs(mean - low) * 2**0.5)
    higher = Contributions("accuracy", 0.4, {kept("a"): 0.5, kept("b"): 0.6, kept("a", "b"): 0.9}, {"a": 0.2, "b": 0.3})
    assert higher.loss_without("a") == pytest.approx(0.3)  # 0.9 with it, 0.6 without
