"""What every model keeps, whatever is inside it."""

from __future__ import annotations

import copy
import re
from itertools import combinations
from typing import Any

import pytest
import torch
from tests.models.builders import BUILDS, DIMS, LENGTHS, Build, Lookup, emptied, make_batch, rows, with_tokens
from torch import Tensor

from equipoise.core import Batch, SubsetPredict
from equipoise.layers import SparseMoE, VectorMoE
from equipoise.models import MODELS, Output

models = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
SUBSETS = [set(kept) for size in (1, 2, 3) for kept in combinations(DIMS, size)]


def _model(build: Build, **given: Any) -> Any:
    torch.manual_seed(0)
    return build(**given).double().eval()


def _tensors(output: Output) -> dict[str, Tensor]:
    unimodal = {f"unimodal/{name}": x for name, x in (output.unimodal or {}).items()}
    return {"logits": output.logits, **unimodal, **{f"features/{name}": x for name, x in output.features.items()}}


def _same(one: Output, other: Output, order: Tensor | None = None, *, atol: float = 1e-12) -> None:
    left, right = _tensors(one), _tensors(other)
    assert list(left) == list(right)
    for name in left:
        expected = right[name] if order is None else right[name][order]
        torch.testing.assert_close(
            left[name], expected, rtol=0, atol=atol, msg=f"{name}: {left[name]} is not {expected}"
        )


def test_each_published_name_is_its_class() -> None:
    assert {name: model.__name__ for name, model in MODELS.items()} == {name: name for name in MODELS}


@models
@pytest.mark.parametrize("outputs", [1, 3])
def test_shapes(build: Build, outputs: int) -> None:
    output = _model(build, outputs=outputs)(make_batch())
    shape = (4,) if outputs == 1 else (4, 3)
    assert output.logits.shape == shape
    assert all(x.shape == shape for x in (output.unimodal or {}).values())
    assert list(output.features) == list(DIMS)
    assert all(x.ndim == 2 and len(x) == 4 for x in output.features.values())


@models
def test_more_padding_changes_nothing(build: Build) -> None:
    model = _model(build)
    _same(model(make_batch(pad=6)), model(make_batch()))
    _same(model.float()(make_batch(pad=6, dtype=torch.float32)), model(make_batch(dtype=torch.float32)), atol=1e-6)


@models
@pytest.mark.parametrize("rubbish", [1e6, float("nan")])
def test_what_padding_holds_changes_nothing(build: Build, rubbish: float) -> None:
    model = _model(build)
    clean, spoilt = make_batch(pad=2), make_batch(pad=2, rubbish=rubbish)
    _same(model(spoilt), model(clean), atol=0)
    model(spoilt).logits.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


@models
def test_reordering_the_batch_reorders_the_output(build: Build) -> None:
    model, batch, order = _model(build), make_batch(), [2, 0, 3, 1]
    _same(model(rows(batch, order)), model(batch), torch.tensor(order))


@models
def test_a_sample_alone_is_what_it_is_in_company(build: Build) -> None:
    model, batch = _model(build), make_batch()
    together = model(batch)
    for row in range(4):
        _same(model(rows(batch, [row])), together, torch.tensor([row]))


@models
def test_encode_then_fuse_is_the_model(build: Build) -> None:
    model, batch = _model(build), make_batch()
    encoded = model.encode(batch)
    assert set(encoded) == set(DIMS)
    _same(model.fuse(encoded), model(batch), atol=0)


@models
def test_an_evaluated_model_is_deterministic_and_draws_nothing(build: Build) -> None:
    model, batch = _model(build), make_batch()
    before = torch.get_rng_state()
    _same(model(batch), model(batch), atol=0)
    assert torch.equal(torch.get_rng_state(), before)


@models
def test_training_is_random(build: Build) -> None:
    model, batch = _model(build).train(), make_batch()
    assert not torch.equal(model(batch).logits, model(batch).logits)


@models
def test_every_parameter_has_a_gradient(build: Build) -> None:
    model = _model(build, dropout=0.0).train()
    batch = make_batch({name: tuple(n + 8 for n in lengths) for name, lengths in LENGTHS.items()})
    output = model(batch)
    loss = output.logits.square().sum() + sum(x.square().sum() for x in (output.unimodal or {}).values())
    if hasattr(model, "losses"):
        loss = loss + sum(model.losses(output, batch).values())
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


@models
@pytest.mark.parametrize("kept", SUBSETS, ids=lambda kept: "+".join(sorted(kept)))
def test_an_absent_modality_is_one_without_frames(build: Build, kept: set[str]) -> None:
    model, batch = _model(build), make_batch()
    absent = model(batch.only(kept))
    _same(absent, model(emptied(batch, set(DIMS) - kept)))
    for name in set(DIMS) - kept:
        assert bool((absent.features[name] == 0).all())


@models
def test_a_sample_may_lack_what_others_have(build: Build) -> None:
    model, batch = _model(build), make_batch()
    mixed = model(emptied(batch, ["audio"], kept=[0, 2]))
    _same(model(rows(emptied(batch, ["audio"], kept=[0, 2]), [0, 2])), mixed, torch.tensor([0, 2]))
    torch.testing.assert_close(mixed.logits[[0, 2]], model(batch).logits[[0, 2]])
    torch.testing.assert_close(mixed.logits[[1, 3]], model(batch.only(["text", "vision"])).logits[[1, 3]])


@models
@pytest.mark.parametrize("kept", SUBSETS, ids=lambda kept: "+".join(sorted(kept)))
def test_a_model_of_any_subset_trains(build: Build, kept: set[str]) -> None:
    given = {"ta_moe": "audio" not in kept, "tv_moe": "vision" not in kept} if build is BUILDS["ags-no-moe"] else {}
    if given and not {"text"} < kept:
        given = {"ta_moe": True, "tv_moe": True}
    model = _model(build, dims={name: DIMS[name] for name in DIMS if name in kept}, **given).train()
    output = model(make_batch())  # modalities that the model does not know are left out
    assert set(output.features) == kept
    output.logits.sum().backward()
    encoders = [p for name, p in model.named_parameters() if name.startswith("encoders")]
    assert all(p.grad is not None for p in encoders)


@models
def test_every_modality_and_every_subset_matters(build: Build) -> None:
    model, batch = _model(build), make_batch()
    logits = [model(batch.only(kept)).logits for kept in SUBSETS if "text" in kept]
    for one, other in combinations(logits, 2):
        assert not torch.allclose(one, other)


@models
def test_subset_prediction_equals_a_call_with_muted_inputs(build: Build) -> None:
    model, batch = _model(build), make_batch()
    muted = batch.muted()
    predict = SubsetPredict(
        lambda encoded: model.fuse(encoded).logits,
        model.encode(batch),
        model.encode(muted),
        module=model,
    )
    subsets = [frozenset(kept) for kept in SUBSETS] + [frozenset[str]()]
    for kept, logits in zip(subsets, predict.batched(subsets), strict=True):
        full = {name: muted.inputs[name].expand_as(x) for name, x in batch.inputs.items()}
        masks = {name: muted.masks[name].expand_as(mask) for name, mask in batch.masks.items()}
        direct = Batch(
            {name: x if name in kept else full[name] for name, x in batch.inputs.items()},
            {name: mask if name in kept else masks[name] for name, mask in batch.masks.items()},
            batch.target,
            batch.index,
        )
        torch.testing.assert_close(logits, model(direct).logits, rtol=0, atol=1e-12)


@models
def test_subset_prediction_teaches_the_encoders(build: Build) -> None:
    model, batch = _model(build).train(), make_batch()
    predict = SubsetPredict(
        lambda encoded: model.fuse(encoded).logits,
        model.encode(batch),
        model.encode(batch.muted()),
        module=model,
    )
    torch.autograd.backward(predict(frozenset({"text", "audio"})).square().sum())
    used = [p for name, p in model.named_parameters() if name.startswith("encoders.audio")]
    assert all(p.grad is not None and bool(p.grad.any()) for p in used)


@models
def test_token_ids_pass_the_text_encoder(build: Build) -> None:
    torch.manual_seed(0)
    lookup = Lookup()
    model, batch = build(text_encoder=lookup).double().eval(), with_tokens(make_batch())
    assert model.text_encoder is lookup
    output = model(batch)
    output.logits.sum().backward()
    assert lookup.table.weight.grad is not None
    assert bool(lookup.table.weight.grad[1:6].any())
    assert not bool(lookup.table.weight.grad[6:].any())  # ids that the batch does not hold
    owner = model.modalities("encoders").parameters("text")
    assert any(p is lookup.table.weight for p in owner)
    muted = model.fuse(model.encode(batch.muted()))
    assert bool(muted.logits.isfinite().all())


@models
def test_groups_are_named_as_modalities_and_share_nothing(build: Build) -> None:
    model = _model(build)
    groups = model.modalities()
    assert groups.names == tuple(DIMS)
    model(make_batch()).logits.sum().backward()
    assert all(groups.gradients(name) for name in groups)


@models
def test_a_fitted_normaliser_makes_the_scale_of_features_irrelevant(build: Build) -> None:
    model, batch = _model(build), make_batch()
    before = model(batch)
    for name, dim in DIMS.items():
        model.normaliser.fit(name, torch.full((dim,), 50.0), torch.full((dim,), 4.0))
    moved = Batch({name: x * 4 + 50 for name, x in batch.inputs.items()}, batch.masks, batch.target, batch.index)
    _same(model(moved), before)
    muted = model.fuse(model.encode(model.normaliser.neutral(moved.muted())))
    fresh = _model(build)
    fresh.load_state_dict({**model.state_dict(), **fresh.normaliser.state_dict(prefix="normaliser.")})
    _same(muted, fresh(batch.muted()))


@models
def test_a_state_dict_is_the_whole_model(build: Build) -> None:
    model, batch = _model(build), make_batch()
    torch.manual_seed(1)
    other = build().double().eval()
    assert not torch.allclose(other(batch).logits, model(batch).logits)
    other.load_state_dict(model.state_dict())
    _same(other(batch), model(batch), atol=0)
    _same(copy.deepcopy(model)(batch), model(batch), atol=0)


@models
def test_autocast_runs_and_stays_close(build: Build) -> None:
    model, batch = _model(build).float(), make_batch(dtype=torch.float32)
    for layer in model.modules():
        if isinstance(layer, SparseMoE | VectorMoE):
            layer.top_k = 3  # all of them: rounding must not change who is chosen
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(batch)
    torch.testing.assert_close(rounded.logits.float(), model(batch).logits, atol=0.05, rtol=0.05)
    rounded.logits.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)


@models
def test_bad_input_is_refused_in_one_line(build: Build) -> None:
    model, batch = _model(build), make_batch()
    with pytest.raises(ValueError, match=r"at least one of \['text', 'audio', 'vision'\]. Found \[\]"):
        model(batch.only([]))
    with pytest.raises(ValueError, match=r"'text' holds token ids. Build the model with a `text_encoder`"):
        model(with_tokens(batch))
    with pytest.raises(ValueError, match=r"'audio' should be 3 wide, as in `dims`. Found 4"):
        model(Batch({"audio": batch.inputs["vision"]}, {"audio": batch.masks["vision"]}, batch.target, batch.index))
    with pytest.raises(ValueError, match=r"'text' holds features, but the model has a `text_encoder`"):
        build(text_encoder=Lookup()).double()(batch)
    with pytest.raises(ValueError, match=r"`dims` should name at least one modality"):
        build(dims={})
    with pytest.raises(ValueError, match=r"should hold positive widths. Found 'audio': 0"):
        build(dims={"audio": 0})
    with pytest.raises(ValueError, match=r"should hold 'text' where `text_encoder` is given"):
        build(dims={"audio": 3, "vision": 4}, text_encoder=Lookup())
    with pytest.raises(ValueError, match=r"Parameter `stage` should be"):
        model.modalities("cortex")


@models
def test_stages_are_those_that_it_takes(build: Build) -> None:
    model: Any = _model(build)
    with pytest.raises(ValueError) as error:
        model.modalities("cortex")
    taken = re.findall(r'"(\w+)"', str(error.value))
    assert list(getattr(model, "stages", ("encoders",))) == taken
    for stage in taken:
        assert len(model.modalities(stage)) > 1


FIRST = {name: build for name, build in BUILDS.items() if "-" not in name or name in ("late-gru", "self-mm")}


@pytest.mark.parametrize("build", FIRST.values(), ids=FIRST)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, between graphs
def test_a_compiled_model_is_the_model(build: Build) -> None:
    # Tracing and its graph breaks are what a model can get wrong; what a backend makes of the graphs is torch's part.
    torch.compiler.reset()
    model, batch = _model(build), make_batch()
    compiled: Any = torch.compile(model, backend="eager")
    output = compiled(batch)
    _same(output, model(batch), atol=1e-12)
    output.logits.square().sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
