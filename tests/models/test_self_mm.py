from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from tests.models import label_ranks
from tests.models.builders import DIMS, Lookup, emptied, make_batch, rows, with_tokens
from tests.models.label_ranks import ALL, TARGETS, WIDTHS, drawn, made
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.data.synthetic import synthetic
from equipoise.models import SelfMM
from equipoise.models._unimodal_labels import UnimodalLabels, generated_labels, relative_distance
from equipoise.training.loop import fit


def _selfmm(**given: Any) -> Any:
    torch.manual_seed(0)
    small = {"dims": DIMS, "hidden": 6, "width": 5, "head_hidden": 7, "fusion_hidden": 8}
    return SelfMM(**{**small, **given}).double()


class _Bert(nn.Module):
    """BERT-base without its pooling head, as the text encoder keeps it."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.dim = 768
        self.model = BertModel(BertConfig(), add_pooling_layer=False)


def test_parameters_on_mosi() -> None:
    with torch.device("meta"):
        model = SelfMM(dims={"text": 768, "audio": 5, "vision": 20}, text_encoder=_Bert())
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


def test_a_label_by_hand() -> None:
    # 1 from the positive centre and 3 from the negative: (3 - 1) / 1. And 2 and 1: (1 - 2) / 2.
    centres = torch.tensor([[[3.0, 0.0]], [[-1.0, 0.0]]])
    assert relative_distance(torch.tensor([[2.0, 0.0]]), centres).item() == pytest.approx(2)
    between = torch.tensor([[-1.0, 0.0]]), torch.tensor([[[1.0, 0.0]], [[-1.0, 1.0]]])
    assert relative_distance(*between).item() == pytest.approx(-0.5)
    # Target 1.5, own 2, joint 1: by ratio 3, by difference 2.5.
    made = generated_labels(torch.tensor([1.5]), torch.tensor([2.0]), torch.tensor([1.0]), 3.0)
    assert made.item() == pytest.approx(2.75)
    assert generated_labels(torch.tensor([1.5]), torch.tensor([2.0]), torch.tensor([1.0]), 2.0).item() == 2.0
    assert generated_labels(torch.tensor([1.5]), torch.tensor([-9.0]), torch.tensor([1.0]), 2.0).item() == -2.0


def test_a_label_is_the_target_and_an_offset() -> None:
    target, own, joint = torch.randn(3, 50, 1, dtype=torch.float64).unbind()
    expected = target + (own - joint) / 2 * (target + joint) / joint
    torch.testing.assert_close(generated_labels(target, own, joint, math.inf), expected, rtol=1e-5, atol=1e-6)


def _distance(x: list[float], y: list[float]) -> float:
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))


class _ByHand:
    """The released algorithm for one target, a sample at a time, in plain numbers."""

    def __init__(self, target: list[float], bound: float) -> None:
        self.target = target
        self.bound = bound
        self.labels = {name: list(target) for name in DIMS}
        self.kept: dict[str, dict[int, list[float]]] = {name: {} for name in (*DIMS, "joint")}

    def alpha(self, name: str, x: list[float]) -> float:
        by = self.target if name == "joint" else self.labels[name]
        sides = [[f for i, f in self.kept[name].items() if sign * by[i] > 0] for sign in (1, -1)]
        p, n = ([sum(column) / len(side) for column in zip(*side, strict=True)] for side in sides)
        return (_distance(x, n) - _distance(x, p)) / _distance(x, p)

    def step(self, epoch: int, index: list[int], features: dict[str, list[list[float]]]) -> None:
        new: list[tuple[str, int, float]] = []
        for place, i in enumerate(index):
            if epoch > 1:
                joint = self.alpha("joint", features["joint"][place])
                for name in DIMS:
                    own = self.alpha(name, features[name][place])
                    y = self.target[i]
                    y_s = 0.5 * own / joint * y + 0.5 * (y + own - joint)
                    y_s = min(max(y_s, -self.bound), self.bound)
                    label = (epoch - 1) / (epoch + 1) * self.labels[name][i] + 2 / (epoch + 1) * y_s
                    new.append((name, i, label))
        for name, i, label in new:
            self.labels[name][i] = label
        for name, x in features.items():
            for place, i in enumerate(index):
                self.kept[name][i] = x[place]


@pytest.mark.parametrize("bound", [None, 1.0])
def test_labels_over_epochs_are_those_of_the_algorithm(bound: float | None) -> None:
    labels, reference = made(bound=bound), _ByHand(TARGETS.flatten().tolist(), bound or 2.5)
    for epoch in range(1, 5):
        order = torch.randperm(7, generator=torch.Generator().manual_seed(epoch))
        for part, index in enumerate(torch.split(order, 3)):
            joint, features = drawn(10 * epoch + part, len(index), TARGETS[index])
            labels.update(index, TARGETS[index], joint, features, {m: ALL[m][index] for m in DIMS})
            whole = {name: x.tolist() for name, x in (features | {"joint": joint}).items()}
            reference.step(epoch, index.tolist(), whole)
    found = labels.read(torch.arange(7), TARGETS)
    for name in DIMS:
        expected = torch.tensor(reference.labels[name]).double()
        torch.testing.assert_close(found[name].flatten(), expected, rtol=1e-6, atol=1e-6)
        assert float((found[name] - TARGETS).abs().mean()) > 0.2


def _seen(labels: UnimodalLabels, epochs: int = 1) -> None:
    """Epochs in which positive samples lie about (1, 0, 0, 0), and negative ones about the opposite."""
    for _ in range(epochs):
        sides = TARGETS.sign() * torch.tensor([[1.0, 0, 0, 0]]).double()
        features = {name: sides[:, :width] for name, width in WIDTHS.items()}
        labels.update(torch.arange(7), TARGETS, sides[:, :3], features, ALL)


def test_labels_move_towards_what_the_modality_says() -> None:
    labels = made()
    _seen(labels)
    # All three samples are mildly positive and fused so; text looks alike, audio negative, vision more positive.
    index, joint = torch.tensor([3, 5]), torch.tensor([[0.2, 0, 0]] * 2).double()
    features = {
        "text": joint,
        "audio": torch.tensor([[-0.5, 0]] * 2).double(),
        "vision": torch.tensor([[0.6, 0, 0, 0]] * 2).double(),
    }
    labels.update(index, TARGETS[index], joint, features, {m: ALL[m][:2] for m in DIMS})
    found = labels.read(index, TARGETS[index])
    torch.testing.assert_close(found["text"], TARGETS[index], rtol=1e-6, atol=1e-6)
    assert bool((found["audio"] < TARGETS[index]).all())
    assert bool((found["vision"] > TARGETS[index]).all())
    # The others stay, and so do labels of samples that were never seen.
    others = torch.tensor([0, 1, 9])
    left = labels.read(others, torch.full((3, 1), 4.0).double())["audio"]
    assert left.flatten().tolist() == [2.5, -1.0, 4.0]


@pytest.mark.parametrize("from_view", [2, 3])
def test_the_view_at_which_labels_first_move(from_view: int) -> None:
    labels = made(from_view=from_view)
    for view in range(1, 5):
        joint, features = drawn(view, 7, TARGETS)
        labels.update(torch.arange(7), TARGETS, joint, features, ALL)
        moved = any(not torch.equal(x, TARGETS) for x in labels.read(torch.arange(7), TARGETS).values())
        assert moved == (view >= from_view)
        assert labels.views.tolist() == [view] * 7


@pytest.mark.parametrize("target", [TARGETS.abs(), -TARGETS.abs(), torch.zeros_like(TARGETS)])
def test_without_both_signs_labels_stay_at_the_target(target: Tensor) -> None:
    labels = made()
    for view in range(3):
        joint, features = drawn(view, 7)
        labels.update(torch.arange(7), target, joint, features, ALL)
    assert all(torch.equal(x, target) for x in labels.read(torch.arange(7), target).values())


def test_a_missing_modality_leaves_its_labels_and_its_centres() -> None:
    labels, without = made(), made()
    _seen(labels)
    _seen(without)
    joint, features = drawn(1, 7, TARGETS)
    gone = ALL | {"audio": torch.zeros(7, dtype=torch.bool)}
    spoilt = features | {"audio": torch.full((7, 2), 1e9).double()}
    without.update(torch.arange(7), TARGETS, joint, spoilt, gone)
    assert torch.equal(without.get_buffer("audio_labels"), TARGETS)
    assert torch.equal(without.get_buffer("audio_features"), labels.get_buffer("audio_features"))
    assert without.get_buffer("audio_views").tolist() == [1] * 7
    labels.update(torch.arange(7), TARGETS, joint, features, ALL)
    assert torch.equal(without.get_buffer("text_labels"), labels.get_buffer("text_labels"))


def test_each_value_of_a_target_has_labels_of_its_own() -> None:
    both = torch.cat([TARGETS, TARGETS.flip(0) / 2], dim=1)
    together, apart = made(outputs=2), [made(), made()]
    for view in range(3):
        joint, features = drawn(view, 7, TARGETS)
        together.update(torch.arange(7), both, joint, features, ALL)
        for value, alone in enumerate(apart):
            alone.update(torch.arange(7), both[:, value : value + 1], joint, features, ALL)
    for name in DIMS:
        expected = torch.cat([alone.get_buffer(f"{name}_labels") for alone in apart], dim=1)
        torch.testing.assert_close(together.get_buffer(f"{name}_labels"), expected)


def test_of_a_sample_twice_in_a_batch_the_first_counts() -> None:
    labels, once = made(), made()
    joint, features = drawn(0, 9, torch.cat([TARGETS, torch.full((2, 1), 9.0)]))
    for kept, order in ((labels, [*range(7), 2, 0]), (once, list(range(7)))):
        rows_of = torch.tensor(order)
        for _ in range(2):
            taken = {name: x[: len(order)] for name, x in features.items()}
            there = {name: x[rows_of] for name, x in ALL.items()}
            kept.update(rows_of, TARGETS[rows_of], joint[: len(order)], taken, there)
    assert {name: x.tolist() for name, x in labels.named_buffers()} == {n: x.tolist() for n, x in once.named_buffers()}


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


def test_two_ranks_keep_the_same_labels_as_one(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo" if Path("/sys/class/net/lo").exists() else "lo0")
        mp.spawn(label_ranks.main, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    alone = label_ranks.shared(0, 1).state_dict()
    assert not torch.equal(alone["text_labels"], TARGETS)
    for name, expected in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        assert torch.equal(ranks[0][name], expected)


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
