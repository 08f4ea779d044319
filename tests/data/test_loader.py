from __future__ import annotations

import os
import pickle
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equipoise.data import Dataset, Loader, Split, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """103 rows in train, whose only audio feature is the row number and whose length follows no order."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, 40, 110)
    return write_dataset(
        tmp_path_factory.mktemp("loader") / "set",
        name="n",
        source="s",
        task="regression",
        modalities={
            "audio": [np.full((length, 1), row) for row, length in enumerate(lengths)],
            "vision": [np.full((1, 2), row) for row in range(110)],
        },
        labels=np.arange(110.0),
        ids=[str(row) for row in range(110)],
        splits=["train"] * 103 + ["test"] * 7,
    )


@pytest.fixture
def train(dataset: Dataset) -> Split:
    return dataset.split("train")


def indices(loader: Loader, epoch: int = 0, start: int = 0) -> list[list[int]]:
    return [batch.index.tolist() for batch in loader.epoch(epoch, start)]


@pytest.mark.parametrize("bucket", [True, False])
def test_each_row_once_an_epoch(train: Split, bucket: bool) -> None:
    loader = Loader(train, 10, shuffle=True, seed=3, bucket=bucket)
    batches = indices(loader)
    assert len(batches) == len(loader) == 11
    assert [len(batch) for batch in batches] == loader.global_batch_sizes() == [10] * 10 + [3]
    assert sorted(chain(*batches)) == list(range(103))


def test_a_batch_holds_its_rows(train: Split) -> None:
    for batch in Loader(train, 10, shuffle=True, seed=3).epoch(0):
        assert batch.target.tolist() == batch.index.tolist()
        assert torch.equal(batch.inputs["vision"], batch.index[:, None, None].expand(-1, 1, 2).float())
        real = batch.inputs["audio"][..., 0] == batch.index[:, None]
        assert torch.equal(real | (batch.inputs["audio"][..., 0] == 0), torch.ones_like(real))
        assert torch.equal(batch.masks["audio"].sum(1), torch.from_numpy(train.lengths("audio")[batch.index]))


def test_order_follows_seed_and_epoch_alone(train: Split) -> None:
    first = indices(Loader(train, 10, shuffle=True, seed=3), epoch=2)
    np.random.default_rng(5).random(7)
    torch.manual_seed(99)
    assert indices(Loader(train, 10, shuffle=True, seed=3), epoch=2) == first
    assert indices(Loader(train, 10, shuffle=True, seed=4), epoch=2) != first
    assert indices(Loader(train, 10, shuffle=True, seed=3), epoch=3) != first


def test_without_shuffle_the_order_is_the_splits(train: Split) -> None:
    assert [*chain(*indices(Loader(train, 10, shuffle=False)))] == list(range(103))


def test_a_start_inside_an_epoch_continues_it(train: Split) -> None:
    loader = Loader(train, 10, shuffle=True, seed=3)
    assert indices(loader, epoch=1, start=4) == indices(loader, epoch=1)[4:]
    assert indices(loader, epoch=1, start=11) == []


def test_buckets_save_padding_and_keep_chance(train: Split) -> None:
    def frames(bucket: bool) -> int:
        loader = Loader(train, 10, shuffle=True, seed=3, bucket=bucket)
        return sum(batch.masks["audio"].numel() for batch in loader.epoch(0))

    real = int(train.lengths("audio").sum())
    wasted, saved = frames(False) - real, frames(True) - real
    assert saved < 0.5 * wasted
    loader = Loader(train, 10, shuffle=True, seed=3)
    assert sorted(indices(loader, 0)[0]) not in [sorted(batch) for batch in indices(loader, 1)]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_each_batch(train: Split, world: int) -> None:
    alone = Loader(train, 10, shuffle=True, seed=3)
    ranks = [Loader(train, 10, shuffle=True, seed=3, rank=rank, world=world) for rank in range(world)]
    sizes = ranks[0].global_batch_sizes()
    parts = list(zip(*(indices(rank) for rank in ranks), strict=True))
    assert sum(sizes) == 103
    assert [sum(len(share) for share in part) for part in parts] == sizes
    for part in parts:
        counts = [len(share) for share in part]
        assert min(counts) >= 1
        assert max(counts) - min(counts) <= 1
    assert sorted(chain(*chain(*parts))) == list(range(103))
    if world <= 3:  # the last batch, of 3, need not join another
        assert [sorted(chain(*part)) for part in parts] == [sorted(batch) for batch in indices(alone)]


def test_a_last_batch_too_small_for_the_ranks_joins_the_one_before(train: Split) -> None:
    loader = Loader(train, 10, shuffle=True, seed=3, rank=4, world=5)
    assert loader.global_batch_sizes() == [10] * 9 + [13]
    assert len(indices(loader)[-1]) == 2


def test_weights_make_the_ranks_mean_that_of_the_batch(train: Split) -> None:
    sizes = Loader(train, 10, shuffle=True, seed=3, world=3).global_batch_sizes()
    whole = [batch.target.mean().item() for batch in Loader(train, 10, shuffle=True, seed=3).epoch(0)]
    means = np.zeros(len(sizes))
    for rank in range(3):
        for i, batch in enumerate(Loader(train, 10, shuffle=True, seed=3, rank=rank, world=3).epoch(0)):
            means[i] += (batch.target.mean().item() * len(batch) * 3 / sizes[i]) / 3
    assert means == pytest.approx(whole)


def test_drop_last_leaves_out_others_each_epoch(train: Split) -> None:
    loader = Loader(train, 10, shuffle=True, seed=3, drop_last=True)
    left = [set(range(103)) - set(chain(*indices(loader, epoch))) for epoch in (0, 1)]
    assert loader.global_batch_sizes() == [10] * 10
    assert [len(rows) for rows in left] == [3, 3]
    assert left[0] != left[1]


def test_workers_change_nothing(train: Split) -> None:
    torch.manual_seed(7)
    here = list(Loader(train, 40, shuffle=True, seed=3).epoch(1, start=1))
    state = torch.random.get_rng_state()
    there = list(Loader(train, 40, shuffle=True, seed=3, workers=2).epoch(1, start=1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(here) == len(there) == 2
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.inputs["audio"], b.inputs["audio"])
        assert torch.equal(a.masks["audio"], b.masks["audio"])


def test_a_split_travels_to_a_process_that_is_started_anew(train: Split) -> None:
    train.batch([0])
    copy: Split = pickle.loads(pickle.dumps(train))
    assert torch.equal(copy.batch([5, 2]).inputs["audio"], train.batch([5, 2]).inputs["audio"])


def test_only_the_modalities_asked_for(train: Split) -> None:
    (batch, *_) = Loader(train, 10, shuffle=True, modalities=["vision"]).epoch(0)
    assert list(batch.inputs) == list(batch.masks) == ["vision"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 2, "world": 2}, "`rank` should be from 0"),
        ({"batch_size": 3, "world": 4}, "`batch_size` should be at least `world` = 4. Found 3"),
        ({"seed": -1}, "non-negative. Found -1, 0"),
        ({"batch_size": 200, "drop_last": True}, "'train' has 103 samples, and a batch needs 200"),
        ({"batch_size": 200, "world": 104}, "'train' has 103 samples, and a batch needs 104"),
        ({"modalities": ["text"]}, r"modalities of the data \(audio, vision\). Found text"),
    ],
)
def test_bad_parameters_are_named(train: Split, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Loader(train, **{"batch_size": 10, "shuffle": True, **changes})


FLAT = r"""
import re, sys
import torch
from equipoise.data import Loader, load
torch.set_num_threads(1)
data = load(sys.argv[1])
train = data.split("train")
train.batch(range(64))
def peak():  # of this program alone; what getrusage tells includes the process that started it
    return int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])
before = peak()
frames = 0
for batch in Loader(train, 64, shuffle=True).epoch(0):
    frames += int(batch.masks["audio"].sum())
train.statistics("audio")
print(frames, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is measured as Linux counts it")
def test_an_epoch_of_400_mb_takes_under_120_mb(tmp_path: Path) -> None:
    # 64 MB of mapped pages, a batch or two of 6.4 MB, a piece of the statistics in double precision, and slack.
    frames = np.ones((250, 100), dtype=np.float32)
    data = write_dataset(
        tmp_path / "set", name="n", source="s", task="regression", modalities={"audio": (frames for _ in range(4000))},
        labels=np.zeros(4000), ids=[str(row) for row in range(4000)], splits=["train"] * 4000,
    )  # fmt: skip
    assert (data.path / "audio.npy").stat().st_size > 400e6
    command = [sys.executable, "-c", FLAT, str(data.path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    read, growth = map(int, output.split())
    assert read == 4000 * 250
    assert growth < 120e3  # in kB
