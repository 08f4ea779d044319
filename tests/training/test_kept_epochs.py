from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equipoise.data import Dataset
from equipoise.training.config import make_config
from equipoise.training.kept_epochs import kept_epochs, read_epoch, spread_out
from equipoise.training.run import load_run, run


def test_every_epoch_is_kept_and_training_stays_as_it_is(dataset: Dataset, tmp_path: Path) -> None:
    found = {}
    for keep in (True, False):
        train = {"epochs": 3, "batch_size": 8, "lr": 0.05, "keep_epochs": keep}
        model = {"name": "LateFusion", "hidden": 4, "encoder": "mean"}
        config = make_config({"data": str(dataset.path), "model": model, "train": train})
        found[keep] = run(config, tmp_path / str(keep))
    assert found[True]["metrics"] == found[False]["metrics"]
    assert kept_epochs(tmp_path / "False") == {}
    files = kept_epochs(tmp_path / "True")
    assert list(files) == [1, 2, 3]
    chosen = load_run(tmp_path / "True").model.state_dict()
    same = {epoch: all(torch.equal(chosen[k], v) for k, v in read_epoch(file).items()) for epoch, file in files.items()}
    assert [epoch for epoch, each in same.items() if each] == [found[True]["epoch"]]


@pytest.mark.parametrize(("most", "expected"), [(1, [3]), (2, [3, 7]), (3, [3, 5, 7]), (9, [3, 4, 5, 6, 7])])
def test_few_of_many_are_spread_evenly(most: int, expected: list[int]) -> None:
    assert list(spread_out({epoch: Path() for epoch in range(3, 8)}, most)) == expected
