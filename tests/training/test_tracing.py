from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.test_every_balancer import NAMES, config_of
from torch import Tensor, nn

from equipoise import AGS, OGMGE, Balancer, Chain, Modalities
from equipoise.core import Batch
from equipoise.data import Dataset
from equipoise.models import LateFusion, Output
from equipoise.training.config import make_config
from equipoise.training.directions import direction_cosines, due_batches
from equipoise.training.loop import fit
from equipoise.training.losses import LOSSES
from equipoise.training.run import run

Make = Callable[..., LateFusion]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["plain", *NAMES])
def test_a_traced_run_is_bit_by_bit_the_one_that_is_not(name: str, dataset: Dataset, tmp_path: Path) -> None:
    if name == "plain":
        values = config_of(dataset, "ags").model_dump() | {"balancer": []}
    else:
        values = config_of(dataset, name).model_dump()
    values["model"] |= {"dropout": 0.3}
    for out, every in (("traced", 1), ("bare", 0)):
        train = values["train"] | {"epochs": 2, "trace_every": every, "direction_every": every}
        run(make_config(values | {"train": train}), tmp_path / out)
    for file in ("predictions.csv", "checkpoint/final/best.safetensors"):
        assert (tmp_path / "traced" / file).read_bytes() == (tmp_path / "bare" / file).read_bytes(), file
    for table in ("metrics.csv", "steps.csv"):
        traced, bare = rows_of(tmp_path / "traced" / table), rows_of(tmp_path / "bare" / table)
        assert [{key: row[key] for key in bare[0]} for row in traced] == bare
        assert len(traced[0]) > len(bare[0])


def train(dataset: Dataset, model: LateFusion, folder: Path, balancer: Balancer | None, **given: Any) -> None:
    settings: dict[str, Any] = {"batch_size": 14, "epochs": 3, "run_dir": folder, **given}
    fit(model, train=dataset.split("train"), valid=dataset.split("valid"), balancer=balancer, **settings)


@pytest.mark.parametrize("apply_to", ["gradient", "update"])
def test_norms_after_are_those_before_times_the_factors(
    dataset: Dataset, make_model: Make, tmp_path: Path, apply_to: Any
) -> None:
    model = make_model()
    chain = Chain(
        AGS(model.modalities(), alpha=1.0, apply_to=apply_to),
        AGS(model.modalities("heads"), alpha=2.0, apply_to=apply_to, from_epoch=1),
    )
    train(dataset, model, tmp_path, chain, trace_every=2)
    steps = rows_of(tmp_path / "steps.csv")
    read = [i % 3 != 1 for i in range(9)]  # the first and the third step of each epoch
    for column in ("norm/text", "norm_after/text", "stage_norm/heads/text"):
        assert [bool(row[column]) for row in steps] == read
    smaller = 0
    for row in (row for row, was_read in zip(steps, read, strict=True) if was_read):
        for name in model.dims:
            factor = float(row[f"factor/{name}"])
            assert float(row[f"norm_after/{name}"]) == pytest.approx(factor * float(row[f"norm/{name}"]), rel=1e-5)
            late = float(row[f"1/factor/{name}"] or 1)
            before, after = (float(row[f"{lead}/heads/{name}"]) for lead in ("stage_norm", "stage_norm_after"))
            assert after == pytest.approx(late * before, rel=1e-5)
            smaller += (factor < 1) + (late < 1)
    assert smaller > 9
    epoch = rows_of(tmp_path / "metrics.csv")[1]  # its steps are 4 to 6, and 4 and 6 are read
    for column in ("norm/audio", "stage_norm/heads/audio"):
        assert float(epoch[column]) == pytest.approx((float(steps[3][column]) + float(steps[5][column])) / 2)


def test_a_later_stage_is_read_without_a_balancer(dataset: Dataset, make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    batch = dataset.split("train").batch(range(42))
    nn.functional.l1_loss(model(batch).logits, batch.target).backward()  # type: ignore[no-untyped-call]
    slopes = {name: [p.grad for p in head.parameters() if p.grad is not None] for name, head in model.heads.items()}
    expected = {k: math.sqrt(sum(float(g.square().sum()) for g in found) / len(found)) for k, found in slopes.items()}
    model.zero_grad()
    train(dataset, model, tmp_path, None, batch_size=42, epochs=1)
    (row,) = rows_of(tmp_path / "steps.csv")
    for name, value in expected.items():
        assert float(row[f"stage_norm/heads/{name}"]) == pytest.approx(value, rel=1e-5)
    assert not [column for column in row if "after" in column]


class Sum(nn.Module):
    """The sum of weighted inputs of one frame, one number each."""

    def __init__(self, **weights: float) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({name: torch.tensor([value]) for name, value in weights.items()})

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        return {name: x[:, 0] * self.weights[name] for name, x in batch.inputs.items()}

    def fuse(self, encoded: dict[str, Tensor]) -> Output:
        return Output(torch.stack(list(encoded.values())).sum(dim=0).squeeze(-1), None, encoded)

    def modalities(self, stage: str = "encoders") -> Modalities:
        return Modalities(**{name: [weight] for name, weight in self.weights.items()})


class OneRow:
    """A split of one sample: inputs 1, target 1."""

    def __len__(self) -> int:
        return 1

    def batch(self, rows: object, names: list[str]) -> Batch:
        mask = torch.ones(1, 1, dtype=torch.bool)
        inputs = {name: torch.ones(1, 1, 1) for name in names}
        return Batch(inputs, dict.fromkeys(names, mask), torch.ones(1), torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize(
    ("text", "audio", "expected"),
    [
        # |f - 1| pulls a weight up where f < 1 and down where f > 1.
        (0.5, 0.25, {"text": 1.0, "audio": 1.0}),  # .75 together: more of both, as alone
        (0.5, 2.0, {"text": -1.0, "audio": 1.0}),  # 2.5 together: less of both; text alone wants more
        (0.75, 0.75, {"text": -1.0, "audio": -1.0}),  # too much together, too little each
        (1.0, 2.0, {"text": None, "audio": 1.0}),  # text alone is right, and wants nothing
    ],
)
def test_directions_agree_or_conflict(text: float, audio: float, expected: dict[str, float | None]) -> None:
    model, names = Sum(text=text, audio=audio).eval(), ["text", "audio"]
    split: Any = OneRow()
    found = direction_cosines(
        model,
        split,
        model.modalities(),
        LOSSES["l1"],
        modalities=names,
        batch_size=1,
        batches=1,
        device=torch.device("cpu"),
    )
    assert found == expected


def test_directions_are_gradients_of_two_losses_and_leave_no_trace(dataset: Dataset, make_model: Make) -> None:
    model = make_model(dropout=0.5, head="mlp").eval()
    split, groups, names = dataset.split("train"), model.modalities(), list(model.dims)
    state, drawn = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad():
        found = direction_cosines(
            model,
            split,
            groups,
            LOSSES["mse"],
            modalities=names,
            batch_size=20,
            batches=8,
            device=torch.device("cpu"),
            seed=3,
        )
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[k]) for k, value in model.state_dict().items())

    import numpy as np

    order = np.random.default_rng(3).permutation(42)
    for name in names:
        cosines = []
        for rows in (order[:20], order[20:40]):  # two whole batches are all there are
            batch = split.batch(rows, names)
            alone = {m: x if m == name else x[:, :1].zero_() for m, x in batch.inputs.items()}
            masks = {m: x if m == name else x[:, :1].fill_(True) for m, x in batch.masks.items()}
            slopes = []
            for given in (split.batch(rows, names), Batch(alone, masks, batch.target, batch.index)):
                model.zero_grad()
                nn.functional.mse_loss(model(given).logits, given.target).backward()  # type: ignore[no-untyped-call]
                slopes.append(torch.cat([g.flatten() for g in groups.gradients(name)]))
            cosines.append(nn.functional.cosine_similarity(slopes[0], slopes[1], dim=0).item())
        assert found[name] == pytest.approx(sum(cosines) / 2, abs=1e-5)
        assert abs(cosines[0] - cosines[1]) > 1e-3, "choose data whose batches differ"


def test_batches_for_directions_are_a_share_of_those_trained() -> None:
    for batches, every in ((40, 400), (7, 3), (1000, 400)):
        spent = [due_batches(epoch, batches, every) for epoch in range(60)]
        assert sum(spent) == 60 * batches // every
    assert due_batches(0, 10**6, 400) == 8
    assert due_batches(5, 100, 0) == 0


def test_directions_stand_in_the_epochs_that_can_afford_them(
    dataset: Dataset, make_model: Make, tmp_path: Path
) -> None:
    model = make_model()
    train(dataset, model, tmp_path, OGMGE(model.modalities()), direction_every=6)  # three batches an epoch
    found = [row["direction/vision"] for row in rows_of(tmp_path / "metrics.csv")]
    assert [bool(cosine) for cosine in found] == [False, True, False]
    assert -1 <= float(found[1]) <= 1
