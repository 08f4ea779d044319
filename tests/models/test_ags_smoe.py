from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, emptied, make_batch

from equipoise.layers import Sequence, SparseMoE
from equipoise.models import AGSSMoE


def _ags(**given: Any) -> AGSSMoE:
    torch.manual_seed(0)
    return AGSSMoE(**{"dims": DIMS, "hidden": 8, "heads": 2, "layers": 2, **given}).double()


def _experts(model: AGSSMoE) -> dict[str, int]:
    return {
        name: sum(len(part.experts) for part in branch.modules() if isinstance(part, SparseMoE))
        for name, branch in model.branches.items()
    }


def test_the_defaults_are_the_papers() -> None:
    defaults = {name: p.default for name, p in inspect.signature(AGSSMoE).parameters.items()}
    paper = {"layers": 9, "hidden": 30, "heads": 5, "experts": 3, "top_k": 2, "dropout": 0.1, "recurrent": True}
    assert {name: defaults[name] for name in paper} == paper
    model = AGSSMoE(dims={"text": 768, "audio": 74, "vision": 47})
    assert _experts(model) == {"ta": 27, "tv": 27}
    assert sum(isinstance(part, torch.nn.LSTM) for part in model.modules()) == 2


@pytest.mark.parametrize(
    ("switches", "experts"),
    [
        ({}, {"ta": 6, "tv": 6}),
        ({"ta_moe": False}, {"ta": 0, "tv": 6}),
        ({"tv_moe": False}, {"ta": 6, "tv": 0}),
        ({"ta_moe": False, "tv_moe": False}, {"ta": 0, "tv": 0}),
        ({"experts": 5, "top_k": 3, "layers": 1}, {"ta": 5, "tv": 5}),
    ],
)
def test_switches_of_the_ablation(switches: dict[str, Any], experts: dict[str, int]) -> None:
    assert _experts(_ags(**switches)) == experts


def test_without_the_lstm_fusion_reads_the_transformer() -> None:
    model = _ags(recurrent=False)
    assert not any(isinstance(part, torch.nn.LSTM) for part in model.modules())


def test_two_stages_name_encoders_and_branches() -> None:
    model = _ags()
    assert model.modalities("encoders").names == ("text", "audio", "vision")
    assert model.modalities("fusion").names == ("ta", "tv")
    encoders = {id(p) for name in DIMS for p in model.modalities("encoders").parameters(name)}
    branches = {id(p) for name in ("ta", "tv") for p in model.modalities("fusion").parameters(name)}
    assert not encoders & branches
    assert encoders | branches | {id(p) for p in model.mlp.parameters()} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(
    ("dims", "anchor", "branches"),
    [
        ({"audio": 3, "vision": 4, "text": 6}, "text", {"ta": "audio", "tv": "vision"}),
        ({"audio": 3, "vision": 4}, "audio", {"av": "vision"}),
        ({"vision": 4, "audio": 3}, "vision", {"va": "audio"}),
        ({"text": 6}, "text", {}),
        ({"text": 6, "audio": 3, "acoustics": 4}, "text", {"text_audio": "audio", "text_acoustics": "acoustics"}),
        ({"text": 6, "audio": 3, "vision": 4, "pose": 2}, "text", {"ta": "audio", "tv": "vision", "tp": "pose"}),
    ],
)
def test_branches_pair_the_anchor_with_each_other(dims: dict[str, int], anchor: str, branches: dict[str, str]) -> None:
    model = _ags(dims=dims)
    assert (model.anchor, model.pairs) == (anchor, branches)
    batch = make_batch(dict.fromkeys(dims, (3, 1)), dims)
    model(batch).logits.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None and "noise" not in name] == []


def test_a_branch_reads_its_own_pair_alone() -> None:
    model = _ags().eval()
    encoded = model.encode(make_batch())
    silent = model.encode(emptied(make_batch(), ["vision"]))
    ta = [model.branches["ta"](x["text"], x["audio"]) for x in (encoded, silent)]
    tv = [model.branches["tv"](x["text"], x["vision"]) for x in (encoded, silent)]
    assert torch.equal(*ta)
    assert not torch.allclose(*tv)


def test_without_the_anchor_the_prediction_is_a_constant() -> None:
    logits = _ags().eval()(make_batch().only(["audio", "vision"])).logits
    assert bool((logits == logits[0]).all())


def test_router_noise_is_drawn_in_training_and_never_at_test() -> None:
    model, batch = _ags(dropout=0.0), make_batch()
    assert not torch.equal(model(batch).logits, model(batch).logits)  # noise is all that is random here
    model.eval()
    assert torch.equal(model(batch).logits, model(batch).logits)
    quiet = _ags(dropout=0.0, ta_moe=False, tv_moe=False)
    assert torch.equal(quiet(batch).logits, quiet(batch).logits)


def test_the_source_is_the_same_in_every_layer() -> None:
    model = _ags(layers=3).eval()
    seen: list[torch.Tensor] = []

    def see(_: torch.nn.Module, inputs: tuple[Sequence, Sequence]) -> None:
        seen.append(inputs[1].values)

    branch: Any = model.branches["ta"]
    for layer in branch.layers:
        layer.register_forward_pre_hook(see)
    model(make_batch())
    assert len(seen) == 3
    assert all(torch.equal(seen[0], other) for other in seen[1:])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": 0}, "`layers` and `experts` should be positive. Found `layers = 0`, `experts = 3`"),
        ({"experts": 0}, "Found `layers = 2`, `experts = 0`"),
        ({"heads": 3}, "`heads` should divide the width 8. Found `heads = 3`"),
        ({"top_k": 4}, "`top_k` should be in 1 to `experts = 3`. Found `top_k = 4`"),
        ({"dims": {"text": 6, "audio": 3}, "tv_moe": False}, r"`tv_moe` is False, but the model has no branch 'tv'"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ags(**given)


def test_one_branch_is_no_stage() -> None:
    with pytest.raises(ValueError, match=r"three modalities. Found the modalities text, audio: balance the enc"):
        _ags(dims={"text": 6, "audio": 3}).modalities("fusion")
