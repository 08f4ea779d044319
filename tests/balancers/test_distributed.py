"""Two ranks (gloo, on the loopback) stay equal to each other and train as one rank does on the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from tests.balancers import ranks
from tests.balancers.loop import same
from tests.balancers.settings import SETTINGS
from torch import Tensor
from torch.testing import assert_close

Ends = list[dict[str, dict[str, Tensor]]]


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    """What each rank ended with, by setting: one pair of processes for all of them."""
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo" if Path("/sys/class/net/lo").exists() else "lo0")
        mp.spawn(ranks.main, args=(str(folder),), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", SETTINGS)
def test_ranks_stay_equal_to_the_bit(name: str, ends: Ends) -> None:
    assert same(ends[0][name], ends[1][name])


@pytest.mark.parametrize("name", SETTINGS)
def test_two_ranks_train_as_one(name: str, ends: Ends) -> None:
    alone = ranks.train(name, 0, 1)
    assert alone.keys() == ends[0][name].keys()
    for key, value in alone.items():
        assert_close(ends[0][name][key], value, rtol=1e-5, atol=1e-7)
