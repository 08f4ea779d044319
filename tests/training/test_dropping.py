"""Training on samples that lose modalities and frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import BUILDS, DIMS, LENGTHS, Build, make_batch
from torch import Tensor

from equipoise.core import Balancer, Step
from equipoise.data import Dataset, Loader
from equipoise.data.corruption import drop_parts
from equipoise.models import LateFusion
from equipoise.training.config import load_config
from equipoise.training.evaluate import evaluate
from equipoise.training.loop import fit
from equipoise.training.run import run

RATES: dict[str, Any] = {"drop_modalities": {"text": 0.5, "audio": 0.2}, "drop_frames": 0.3}


def train(dataset: Dataset, model: LateFusion, **settings: Any) -> dict[str, Tensor]:
    fit(
        model,
        train=dataset.split("train"),
        valid=dataset.split("valid"),
        **{"epochs": 3, "batch_size": 8, "select": "last", **settings},
    )
    return model.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


class Killed(Exception):
    pass


@pytest.mark.parametrize("last", [4, 9])
def test_a_resumed_run_drops_what_it_would_have_dropped(
    dataset: Dataset, make_model: Callable[..., LateFusion], tmp_path: Path, last: int
) -> None:
    def stop(step: int, *_: object) -> None:
        if step == last:
            raise Killed

    calm = train(dataset, make_model(), **RATES)
    with pytest.raises(Killed):
        train(dataset, make_model(), run_dir=tmp_path, checkpoint_every=2, progress=stop, **RATES)
    assert same(train(dataset, make_model(), run_dir=tmp_path, checkpoint_every=2, **RATES), calm)
    assert not same(train(dataset, make_model()), calm)


def test_rates_of_zero_train_the_plain_model(dataset: Dataset, make_model: Callable[..., LateFusion]) -> None:
    zero = train(dataset, make_model(), drop_modalities={"text": 0.0}, drop_frames=0.0)
    assert same(zero, train(dataset, make_model()))


def test_ranks_drop_together_what_one_would(dataset: Dataset) -> None:
    split = dataset.split("train")

    def masks(rank: int, world: int, batch_size: int) -> dict[int, list[Tensor]]:
        found = {}
        loader = Loader(split, batch_size, shuffle=True, seed=1, rank=rank, world=world)
        for batch in loader.epoch(4):
            left = drop_parts(batch, RATES["drop_modalities"], {"audio": 0.3}, seed=1, draw=4)
            for row, index in enumerate(left.index.tolist()):
                found[index] = [left.masks[name][row].nonzero() for name in left.masks]
        return found

    one = masks(0, 1, 8)
    assert len(one) == len(split)
    for two in ({**masks(0, 2, 8), **masks(1, 2, 8)}, masks(0, 1, 5)):
        assert two.keys() == one.keys()
        assert all(torch.equal(a, b) for index in one for a, b in zip(one[index], two[index], strict=True))


class Watching(Balancer):
    """Notes for each step which samples have features of text, and of anything."""

    needs = frozenset({"features"})

    def __init__(self, modalities: Any) -> None:
        super().__init__(modalities)
        self.text: list[Tensor] = []
        self.some: list[Tensor] = []

    def forward(self, step: Step) -> Tensor:
        assert step.features is not None
        has = torch.stack([x.any(dim=1) for x in step.features.values()])
        self.text.append(has[0])
        self.some.append(has.any(dim=0))
        return super().forward(step)


def test_a_balancer_sees_what_the_model_sees_and_validation_is_whole(
    dataset: Dataset, make_model: Callable[..., LateFusion]
) -> None:
    model = make_model(encoder="pool")  # features are the mean frame: zeros where there is none, and only there
    watching, rows = Watching(model.modalities("heads")), []
    train(
        dataset,
        model,
        balancer=watching,
        epochs=6,
        drop_modalities={"text": 0.5},
        observer=lambda epoch, model: rows.append(evaluate(model, dataset.split("valid"), quiet=True).loss),
        progress=lambda step, steps, row: rows.append(row["valid_loss"]) if row else None,
    )
    assert float(torch.cat(watching.text).float().mean()) == pytest.approx(0.5, abs=0.08)  # of 252
    assert bool(torch.cat(watching.some).all())
    assert rows[::2] == rows[1::2]
    epochs = torch.cat(watching.text).view(6, -1)
    assert len(set(epochs.sum(dim=1).tolist())) > 1


def _own_losses(model: Any, output: Any, batch: Any) -> list[Tensor]:
    return list(model.losses(output, batch).values()) if hasattr(model, "losses") else []


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_every_model_learns_from_what_is_left(build: Build) -> None:
    torch.manual_seed(0)
    model = build().double().train()
    whole = make_batch({name: tuple(n + 4 for n in lengths) for name, lengths in LENGTHS.items()})
    for draw in range(6):
        batch = drop_parts(whole, dict.fromkeys(DIMS, 0.6), dict.fromkeys(DIMS, 0.8), seed=0, draw=draw)
        output = model(batch)
        loss = output.logits.square().sum() + sum(_own_losses(model, output, batch))
        loss.backward()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        assert found
        assert all(bool(gradient.isfinite().all()) for gradient in found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop_modalities": {"txt": 0.5}}, "should name modalities of the data .text, audio, vision.. Found txt"),
        ({"drop_frames": 1.0}, "`drop_frames` should be at least 0 and below 1. Found `drop_frames = 1.0`"),
        ({"drop_modalities": {"text": -0.1}}, "`drop_modalities` should be at least 0 and below 1"),
    ],
)
def test_rates_that_do_not_fit(
    dataset: Dataset, make_model: Callable[..., LateFusion], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(dataset, make_model(), **settings)


def test_a_config_takes_a_rate_or_rates_by_modality(dataset: Dataset) -> None:
    def rates(**given: str) -> Any:
        return load_config(None, {"data": "x", **{f"train.{key}": value for key, value in given.items()}}).train

    assert rates().drop_modalities == rates().drop_frames == 0.0
    assert rates(drop_modalities="0.3").drop_modalities == 0.3
    assert rates(drop_frames="{text: 0.5}").drop_frames == {"text": 0.5}
    assert load_config(None, {"data": "x", "train.drop_modalities.text": "0.4"}).train.drop_modalities == {"text": 0.4}


@pytest.mark.parametrize("rate", ["1", "-0.1", "often", "{text: 1.5}", "true", "[0.1]", "null", ".nan"])
def test_a_config_refuses_what_is_no_rate(rate: str) -> None:
    with pytest.raises(ValueError, match=r"`train.drop_modalities` and `train.drop_frames` should be a rate") as error:
        load_config(None, {"data": "x", "train.drop_modalities": rate})
    assert "\n" not in str(error.value)


def test_a_run_on_some_modalities_takes_the_rates_of_all(dataset: Dataset, tmp_path: Path) -> None:
    config = {
        "data": str(dataset.path),
        "model.hidden": 4,
        "model.encoder": "mean",
        "modalities": ["text", "audio"],
        "train.epochs": 1,
        "train.drop_modalities": {"audio": 0.5, "vision": 0.5},
    }
    assert run(load_config(None, config), tmp_path / "run")["modalities"].keys() == {"text", "audio"}
