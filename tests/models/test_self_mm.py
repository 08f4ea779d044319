from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.bert_base import BertBase
from tests.models.builders import DIMS, Lookup, emptied, make_batch, rows, with_tokens
from tests.models.label_ranks import TARGETS
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.data.synthetic import synthetic
from equipoise.models import SelfMM
from equipoise.training.loop import fit


def _selfmm(**given: Any) -> Any:
    torch.manual_seed(0)
    small = {"dims": DIMS, "hidden": 6, "width": 5, "head_hidden": 7, "fusion_hidden": 8}
    return SelfMM(**{**small, **given}).double()


def test_parameters_on_mosi() -> None:
    with torch.device("meta"):
        model = SelfMM(dims={"text": 768, "audio": 5, "vision": 20}, text_encoder=BertBase())
    audio = 4 * 32 * (5 + 32) + 8 * 32 + 32 * 16 + 16
    vision = 4 * 64 * (20 + 64) + 8 * 64 + 64 * 32 + 32
    heads = sum(d * h + h + h * h + h + h + 1 for d, h in ((768 + 16 + 32, 128), (768, 64), (16, 16), (32, 32)))
    found = sum(p.numel() for p in model.parameters())
    assert found == 108_891_648 + audio + vision + heads == 109_098_628


def test_the_network_derived_again() -> None:
    model, batch = _selfmm(outputs=2).eval(), make_batch()
    output = model(batch)
    for row in range(4):
        found = []
        for name in DIMS:
            encoder = model.encoders[name]
            _, (last, _) = encoder.lstm(batch.inputs[name][row][batch.masks[name][row]])
            found.append(encoder.mlp[1].weight @ last[0] + encoder.mlp[1].bias)
            torch.testing.assert_close(output.features[name][row], found[-1])
        heads = {"joint": (model.fusion, torch.cat(found), output.logits)}
        heads |= {f"{m}_hidden": (model.heads[m], x, output.unimodal[m]) for m, x in zip(DIMS, found, strict=True)}
        for key, (head, x, said) in heads.items():
            hidden = (head.first[1].weight @ x + head.first[1].bias).clamp(min=0)
            torch.testing.assert_close(output.extra[key][row], hidden)
            low = (head.rest[0].weight @ hidden + head.rest[0].bias).clamp(min=0)
            torch.testing.assert_close(said[row], head.rest[2].weight @ low + head.rest[2].bias)


def test_text_that_is_tuned_is_its_first_vector_and_frozen_text_is_features() -> None:
    tuned, batch = _selfmm(text_encoder=Lookup()), with_tokens(make_batch())
    assert list(tuned.encoders) == ["audio", "vision"]
    first = tuned.text_encoder.table.weight[batch.inputs["text"][:, 0]]
    assert torch.equal(tuned(batch).features["text"], first)
    frozen = _selfmm(text_encoder=Lookup().requires_grad_(False))
    assert list(frozen.encoders) == list(DIMS)
    frozen(batch).logits.sum().backward()
    groups = frozen.modalities()
    assert all(groups.gradients(name) for name in groups)


def _batch(target: Tensor = TARGETS[:4, 0]) -> Batch:
    return replace(make_batch(), target=target)


def test_losses_by_hand() -> None:
    model, batch = _selfmm(), emptied(_batch(), ["audio"], kept=[0, 1, 2])
    output = model(batch)
    found = model.losses(output, batch)
    assert {name: x.item() for name, x in found.items()} == {f"unimodal/{name}": 0.0 for name in DIMS}
    shifts = torch.tensor([0.5, -1.0, 0.0, 2.0]).double()
    with torch.no_grad():
        for name in DIMS:
            model.labels.get_buffer(f"{name}_labels").add_(shifts.unsqueeze(1))
    found = model.eval().losses(output, batch)
    for name in DIMS:
        terms = [
            math.tanh(abs(float(shift))) * abs(float(said - (y + shift)))
            for said, y, shift in zip(output.unimodal[name].detach(), batch.target, shifts, strict=True)
        ]
        if name == "audio":
            terms[3] = 0.0
        assert found[f"unimodal/{name}"].item() == pytest.approx(sum(terms) / 4)


def test_classes_are_learnt_as_they_are() -> None:
    model, batch = _selfmm(outputs=3).train(), emptied(_batch(torch.tensor([0, 2, 1, 1])), ["vision"], kept=[1, 2, 3])
    output = model(batch)
    for _ in range(3):
        found = model.losses(output, batch)
    assert list(found) == ["unimodal/text", "unimodal/audio", "unimodal/vision"]
    for name in DIMS:
        logs = output.unimodal[name].log_softmax(dim=1)[torch.arange(4), batch.target]
        kept = logs[1:] if name == "vision" else logs
        assert found[f"unimodal/{name}"].item() == pytest.approx(-kept.sum().item() / 4, rel=1e-5)
    assert all(len(x) == 0 for x in model.labels.buffers())


def _state(model: nn.Module) -> dict[str, Any]:
    return {name: x.tolist() for name, x in model.state_dict().items()}


def test_evaluation_and_a_forward_alone_leave_the_state() -> None:
    model, batch = _selfmm().train(), _batch()
    model.losses(model(batch), batch)
    before = _state(model)
    model(rows(batch, [1, 2]))
    model.eval()
    model.losses(model(batch), batch)
    other = replace(batch, index=batch.index + 50)
    model.losses(model(other), other)
    assert _state(model) == before
    model.train().losses(model(batch), batch)
    assert _state(model) != before


def _train(model: SelfMM, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)  # dropout
        order = torch.randperm(4).tolist()
        for part in (order[:2], order[2:]):
            batch = rows(_batch(), part)
            output = model(batch)
            loss = (output.logits - batch.target).abs().mean() + sum(model.losses(output, batch).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def test_a_resumed_run_is_the_same_to_the_bit(tmp_path: Path) -> None:
    def pair() -> tuple[SelfMM, torch.optim.Optimizer]:
        model = _selfmm(dropout=0.3).train()
        return model, torch.optim.Adam(model.parameters(), lr=0.01)

    straight, first, second = pair(), pair(), pair()
    _train(*straight, range(6))
    _train(*first, range(3))
    torch.save([part.state_dict() for part in first], tmp_path / "state.pt")
    with torch.no_grad():  # a fresh module whose state has another size
        _train(second[0], torch.optim.SGD(second[0].parameters(), lr=0.0), range(0))
        far = replace(_batch(), index=torch.tensor([30, 8, 2, 1]))
        second[0].losses(second[0](far), far)
    saved = torch.load(tmp_path / "state.pt")
    second[0].load_state_dict(saved[0])
    second[1].load_state_dict(saved[1])
    assert len(second[0].labels.views) == 4
    _train(*second, range(3, 6))
    assert _state(second[0]) == _state(straight[0])
    assert float((straight[0].labels.get_buffer("audio_labels") - TARGETS[:4]).abs().max()) > 0
    empty = _selfmm()
    empty.load_state_dict(straight[0].state_dict())
    straight[0].labels.forget()
    assert all(len(x) == 0 for x in straight[0].labels.buffers())
    straight[0].load_state_dict(empty.state_dict())
    assert _state(empty) == _state(straight[0])


def test_another_models_state_is_refused() -> None:
    model, batch = _selfmm().train(), _batch()
    model.losses(model(batch), batch)
    with pytest.raises(RuntimeError, match="audio_features"):
        _selfmm(head_hidden={"audio": 3, "text": 7, "vision": 7}).load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bound": 0}, "`bound` should be positive, or None. Found `bound = 0`"),
        ({"from_view": 1}, "`from_view` should be at least 2: .* Found `from_view = 1`"),
        (
            {"hidden": {"pose": 4}},
            r"`hidden` should name modalities of \['text', 'audio', 'vision'\]. Found \['pose'\]",
        ),
        ({"width": 0}, "`width` should be positive. Found {'text': 0"),
        ({"head_hidden": {"audio": -1}}, "`head_hidden` should be positive"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _selfmm(**given)


def test_training_moves_the_labels_from_the_second_epoch(tmp_path: Path) -> None:
    dims, lengths = {"text": 6, "audio": 5, "vision": 4}, {"text": (1, 4), "audio": (2, 6), "vision": (1, 5)}
    data = synthetic(tmp_path / "data", n=60, dims=dims, lengths=lengths)
    train, moved = data.split("train"), []
    whole = train.batch(range(len(train)))

    def observe(_epoch: int, model: nn.Module) -> None:
        assert isinstance(model, SelfMM)
        labels = model.labels.read(whole.index, whole.target.unsqueeze(1))["audio"]
        moved.append(float((labels.squeeze(1) - whole.target).abs().mean()))

    torch.manual_seed(0)
    model = SelfMM(dims=dims, hidden=8, width=4, head_hidden=8, fusion_hidden=16, dropout=0.0)
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 14, "lr": 0.01, "select": "last", "observer": observe}
    fit(model, train=train, valid=data.split("valid"), **settings)
    assert moved[0] == 0
    assert min(moved[1:]) > 0.01
    assert model.labels.views.sum() == 3 * len(train)
