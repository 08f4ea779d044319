"""What experts do is counted as the layers count it, and where it is known by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.builders import BUILDS
from torch import nn

from equipoise.core import Batch
from equipoise.data import Dataset, Split, synthetic, write_dataset
from equipoise.diagnostics.experts import expert_loads
from equipoise.layers import SparseMoE, VectorMoE
from equipoise.models import AGSSMoE, GLoMo
from equipoise.models.output import Output

WIDE = {"text": 6, "audio": 5, "vision": 4}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return synthetic(tmp_path_factory.mktemp("data") / "small", n=60, dims=WIDE, seed=2).split("train")


def built(name: str) -> Any:
    torch.manual_seed(1)
    return BUILDS[name](dims=WIDE)


def test_tokens_are_counted_as_the_layers_count_them(split: Split) -> None:
    model = built("ags")
    assert isinstance(model, AGSSMoE)
    found = expert_loads(model, split)
    model.eval()
    with torch.no_grad():
        model(split.batch(np.arange(len(split))))
    mixtures = {name: part for name, part in model.named_modules() if isinstance(part, SparseMoE)}
    assert [each.name for each in found] == list(mixtures)
    assert len(found) == 4  # two branches of two layers
    for each in found:
        layer = mixtures[each.name]
        np.testing.assert_allclose(each.load, layer.load.double() / layer.load.sum(), rtol=1e-12)
        np.testing.assert_allclose(each.importance, layer.importance.double() / layer.importance.sum(), rtol=1e-5)
        assert each.kind == "tokens"
        assert each.visits == split.lengths("text").sum()
        np.testing.assert_allclose(each.parts.sum(axis=1), 1)


def test_batches_and_progress_change_nothing(split: Split) -> None:
    model, ticks = built("ags").train(), list[tuple[int, int]]()
    whole = expert_loads(model, split)
    pieces = expert_loads(model, split, batch_size=16, progress=lambda *at: ticks.append(at))
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one.load, other.load)
        np.testing.assert_allclose(one.parts, other.parts, rtol=1e-5)
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    assert model.training
    assert not any(part._forward_hooks for part in model.modules())


def test_vectors_are_counted_as_glomo_reports_them(split: Split) -> None:
    model = built("glomo")
    assert isinstance(model, GLoMo)
    found = {each.name: each for each in expert_loads(model, split)}
    assert list(found) == [f"encoders.{name}.mixer" for name in WIDE]
    model.eval()
    with torch.no_grad():
        extra = model(split.batch(np.arange(len(split)))).extra
    for name in WIDE:
        each = found[f"encoders.{name}.mixer"]
        load, gates = extra[f"load/{name}"].double().sum(0), extra[f"gates/{name}"].double().sum(0)
        np.testing.assert_allclose(each.load, load / load.sum(), rtol=1e-6)
        np.testing.assert_allclose(each.importance, gates / gates.sum(), rtol=1e-6)
        assert each.parts.shape == (3, 3)
        np.testing.assert_allclose(each.parts.sum(axis=0), 1)


class Mixed(nn.Module):
    """One mixture and nothing else; what it reads is the data."""

    def __init__(self, mixture: SparseMoE | VectorMoE) -> None:
        super().__init__()
        self.mixture = mixture

    def encode(self, batch: Batch) -> dict[str, Any]:
        return {"audio": (batch.inputs["audio"], batch.masks["audio"])}

    def fuse(self, encoded: dict[str, Any]) -> Output:
        values, mask = encoded["audio"]
        out = self.mixture(values, mask) if isinstance(self.mixture, SparseMoE) else self.mixture(values[:, 0]).mixed
        return Output(out.flatten(1).sum(1), None, {"audio": out.flatten(1)})


def dataset(path: Any, sequences: list[Any]) -> Dataset:
    n = len(sequences)
    return write_dataset(
        path,
        name="hand",
        source="test",
        task="classification",
        modalities={"audio": sequences},
        labels=np.arange(n) % 2,
        ids=[str(i) for i in range(n)],
        splits=["train"] * n,
    )


def test_groups_and_quarters_of_tokens_by_hand(tmp_path: Any) -> None:
    layer = SparseMoE(2, experts=2, top_k=1)
    with torch.no_grad():
        layer.gate.weight.copy_(torch.eye(2))
    first, second = [1.0, 0.0], [0.0, 1.0]
    sequences = [[first] * 4, [first, first, first, second], [second] * 8]
    data = dataset(tmp_path / "data", [np.array(each, dtype=np.float32) for each in sequences])
    (found,) = expert_loads(Mixed(layer), data.split("train"), groups=["x", "x", "y"])
    assert found.load.tolist() == pytest.approx([7 / 16, 9 / 16])
    assert found.importance.tolist() == pytest.approx([7 / 16, 9 / 16])
    assert found.imbalance == pytest.approx(1 / 8)
    assert found.groups["x"].tolist() == pytest.approx([7 / 8, 1 / 8])
    assert found.groups["y"].tolist() == [0, 1]
    # Each quarter: a token of each of the first two samples, two of the third.
    assert found.parts.tolist() == pytest.approx(np.array([[2, 2], [2, 2], [2, 2], [1, 3]]) / 4)
    assert found.visits == 16


def test_parts_of_vectors_by_hand_and_missing_ones_left_out(tmp_path: Any) -> None:
    layer = VectorMoE(4, 2, experts=2, top_k=1)  # two local representations, two wide
    with torch.no_grad():
        layer.gate.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0]]))
        for expert in layer.experts:
            expert[0].weight.copy_(torch.tensor([[1.0, 0, 1.0, 0], [0, 1.0, 0, 1.0]]))  # type: ignore[index]
    vectors = [[3, 0, 1, 0], [3, 0, 0, 1], [0, 1, 2, 0], [0, 0, 0, 0]]
    data = dataset(tmp_path / "data", [np.array([each], dtype=np.float32) for each in vectors])
    (found,) = expert_loads(Mixed(layer), data.split("train"), groups=["x", "x", "y", "z"])
    assert found.kind == "vectors"
    assert found.visits == 3
    assert found.load.tolist() == pytest.approx([2 / 3, 1 / 3])
    np.testing.assert_allclose(found.parts, [[18 / 20, 1 / 5], [2 / 20, 4 / 5]])
    assert np.isnan(found.groups["z"]).all()
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["groups"]["z"] == [None, None]
    assert plain["groups"]["x"] == [1, 0]


def test_a_model_without_experts_has_no_load(split: Split) -> None:
    assert expert_loads(built("late-gru"), split) == []
    assert expert_loads(built("ags-no-moe"), split) == []


def test_bad_input_is_named(split: Split) -> None:
    with pytest.raises(ValueError, match="42 samples and 2 groups"):
        expert_loads(built("ags"), split, groups=["a", "b"])


def test_one_expert_that_does_it_all_has_the_greatest_imbalance(tmp_path: Any) -> None:
    layer = SparseMoE(2, experts=4, top_k=1)
    with torch.no_grad():
        layer.gate.weight.copy_(torch.tensor([[9.0, 9.0]] + [[0.0, 0.0]] * 3))
    data = dataset(tmp_path / "data", [np.ones((3, 2), dtype=np.float32)] * 2)
    (found,) = expert_loads(Mixed(layer), data.split("train"))
    assert found.load.tolist() == [1, 0, 0, 0]
    assert found.imbalance == pytest.approx(3**0.5)
