"""The labels of single modalities that Self-MM and TETFN make as they train."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from tests.models import label_ranks
from tests.models.builders import DIMS
from tests.models.label_ranks import ALL, TARGETS, WIDTHS, drawn, made
from torch import Tensor

from equipoise.models._unimodal_labels import UnimodalLabels, generated_labels, relative_distance


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
