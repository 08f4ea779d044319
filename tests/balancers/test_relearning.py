"""Re-learning: k-means against SciPy and by hand, purities by counting, resets by the equation."""

from __future__ import annotations

from collections import Counter
from math import tanh
from statistics import median
from typing import Any

import pytest
import torch
from scipy.cluster.vq import kmeans2
from tests.balancers.loop import Run, Setting, same
from tests.balancers.toy import data, encoders
from torch import Tensor, nn
from torch.testing import assert_close

from equipoise import Modalities, Relearning, Step
from equipoise.functional import kmeans, purity, relearning_strengths


def groups(clusters: Tensor) -> set[frozenset[int]]:
    """The partition, whatever its clusters are called."""
    return {frozenset((clusters == c).nonzero().flatten().tolist()) for c in set(clusters.tolist())}


@pytest.mark.parametrize(
    ("clusters", "classes", "expected"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 1.0),
        ([1, 1, 0, 0], [3, 3, 9, 9], 1.0),  # names of clusters and classes are of no matter
        ([0, 0, 0, 0], [0, 0, 0, 1], 3 / 4),  # one cluster: the commonest class
        ([0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 1, 1], 4 / 6),
        ([0, 1, 2, 3], [0, 0, 0, 0], 1.0),
        ([0, 0, 2], [5, 7, 5], 2 / 3),  # a cluster that nothing is in
    ],
)
def test_purity(clusters: list[int], classes: list[int], expected: float) -> None:
    own = torch.tensor(classes)
    assert purity(torch.tensor(clusters), own).item() == pytest.approx(expected)
    assert own.tolist() == classes  # released code renames the labels in place


def test_kmeans_finds_clusters_that_lie_apart() -> None:
    torch.manual_seed(0)
    truth = torch.arange(5).repeat(20)
    x = torch.eye(5)[truth] * 10 + torch.randn(100, 5)
    for seed in range(3):
        assert groups(kmeans(x, 5, seed=seed)) == groups(truth)


@pytest.mark.parametrize("seed", range(4))
def test_kmeans_is_no_worse_than_most_starts_of_scipy(seed: int) -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = kmeans(x, 4, seed=seed)

    def error(assigned: Tensor) -> float:
        own = [x[assigned == c] for c in set(assigned.tolist())]
        return sum(float((rows - rows.mean(dim=0)).square().sum()) for rows in own)

    others = [kmeans2(x.numpy(), 4, iter=50, minit="++", rng=start)[1] for start in range(10)]
    assert error(found) <= median(error(torch.from_numpy(other)) for other in others)
    centres = torch.stack([x[found == c].mean(dim=0) for c in range(4)])
    assert torch.equal(torch.cdist(x, centres).argmin(dim=1), found)  # a fixed point of Lloyd's algorithm


def test_kmeans_is_the_same_each_time_and_leaves_the_generator_alone() -> None:
    x = torch.randn(50, 4)
    before = torch.get_rng_state()
    assert torch.equal(kmeans(x, 6, seed=1), kmeans(x, 6, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_kmeans_of_few_or_equal_rows() -> None:
    assert len(set(kmeans(torch.tensor([[0.0], [1.0]]), 5).tolist())) == 2
    assert len(set(kmeans(torch.zeros(6, 2), 3).tolist())) == 1


def test_strengths() -> None:
    found = relearning_strengths(torch.tensor([0.9, 0.3, 0.5]), torch.tensor([0.4, 0.5, 0.5]), strength=3.0)
    assert found.tolist() == pytest.approx([tanh(1.5), tanh(0.6), 0.0])


def layers(*starts: float) -> list[nn.Linear]:
    found = [nn.Linear(1, 1, bias=False) for _ in starts]
    for layer, start in zip(found, starts, strict=True):
        nn.init.constant_(layer.weight, start)
    return found


def step(target: Tensor, **features: list[float]) -> Step:
    return Step(torch.zeros(()), target=target, features={name: torch.tensor([x]).T for name, x in features.items()})


Y = torch.tensor([0, 0, 1, 1])
GOOD, BAD = [0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]  # purities 1 and 1/2


def test_a_reset() -> None:
    # text: purity 1 in both splits, stays. audio: 1 against 1/2, a = tanh(2 · 1/2); from 8 back towards 4.
    text, audio = layers(3.0, 4.0)
    balancer = Relearning(Modalities(text=text, audio=audio), strength=2.0, every=1)
    balancer(step(Y, text=GOOD, audio=GOOD))
    with torch.no_grad():
        text.weight.fill_(7.0)
        audio.weight.fill_(8.0)
    place = audio.weight.data_ptr()
    balancer.end_epoch(train=[step(Y, text=GOOD, audio=GOOD)], val=[step(Y, text=GOOD, audio=BAD)])
    assert text.weight.item() == 7.0
    assert audio.weight.item() == pytest.approx(8 - 4 * tanh(1))
    assert audio.weight.data_ptr() == place  # released code puts a new tensor there
    assert balancer.trace["strengths"].tolist() == pytest.approx([0.0, tanh(1)])


def test_a_gap_counts_in_either_direction_and_batches_are_put_together() -> None:
    text, audio = layers(0.0, 0.0)
    balancer = Relearning(Modalities(text=text, audio=audio), strength=2.0, every=1)
    balancer(step(Y, text=GOOD, audio=GOOD))
    halves = [step(Y[:2], text=BAD[:2], audio=GOOD[:2]), step(Y[2:], text=BAD[2:], audio=GOOD[2:])]
    balancer.end_epoch(train=halves, val=[step(Y, text=GOOD, audio=GOOD)])
    assert balancer.trace["train_purity"].tolist() == [0.5, 1.0]
    assert balancer.trace["strengths"].tolist() == pytest.approx([tanh(1), 0.0])


def test_dimensions_are_scaled_first() -> None:
    # Without it the second dimension, which says nothing, would make the clusters.
    text, audio = layers(0.0, 0.0)
    balancer = Relearning(Modalities(text=text, audio=audio), every=1)
    x = torch.tensor([[0.0, 0.0], [0.1, 900.0], [1.0, 400.0], [0.9, 1000.0]])
    wide = torch.cat([x, x + torch.tensor([0.0, 1.0]), x + torch.tensor([0.01, 0.0])])
    wide = torch.cat([wide[:, :1].repeat(1, 4), wide[:, 1:]], dim=1)
    own = Step(torch.zeros(()), target=Y.repeat(3), features={"text": wide, "audio": torch.zeros(12, 1)})
    balancer(own)
    balancer.end_epoch(train=[own], val=[own])
    assert balancer.trace["train_purity"].tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("every", "times", "first", "acts"),
    [(20, 3, 0, [20, 40, 60]), (15, None, 0, [15, 30, 45, 60, 75]), (10, 2, 5, [15, 25])],
)
def test_when(every: int, times: int | None, first: int, acts: list[int]) -> None:
    """Epochs are counted when they are over; the steps of the others are not read."""
    text, audio = layers(0.0, 0.0)
    balancer = Relearning(Modalities(text=text, audio=audio), every=every, times=times, from_epoch=first)
    own = step(Y, text=GOOD, audio=BAD)
    balancer(own)
    read: list[int] = []

    def steps(epoch: int) -> Any:
        read.append(epoch)
        yield own

    for epoch in range(1, 81):
        balancer.end_epoch(train=steps(epoch), val=[own])
    assert read == acts


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("regression", [False, True])
def test_training_against_the_equations(count: int, regression: bool) -> None:
    """Several epochs, derived again with counters; k-means by exhaustion over all partitions of few samples.

    The seeds are such that its ten starts reach the best partition, as they need not.
    """
    run = Run(Setting(lambda m, n: Relearning(encoders(m, n), strength=1.5, every=2, times=2, bins=2)), count)
    assert run.balancer is not None
    start = run.parameters()
    resets = 0
    for epoch in range(1, 7):
        run.train(data(count, seed=epoch))
        expected = run.parameters()
        splits = [data(count, rows=6, seed=500 + epoch), data(count, rows=6, seed=600 + epoch)]
        steps = []
        with torch.no_grad():
            for split in splits:
                target = split.inputs["text"].sum(dim=1) if regression else split.target
                steps.append(Step(torch.zeros(()), target=target, features=run.model.encode(split.inputs)))
        if epoch in (2, 4):
            for name in run.model.encoders:
                a = tanh(1.5 * abs(by_hand(steps[0], steps[0], name) - by_hand(steps[1], steps[0], name)))
                resets += a > 0
                for key in expected:
                    if key.startswith(f"encoders.{name}."):
                        expected[key] = (1 - a) * expected[key] + a * start[key]
        run.balancer.end_epoch(train=[steps[0]], val=[steps[1]])
        for key, value in run.parameters().items():
            assert_close(value, expected[key])
    assert resets


def by_hand(own: Step, train: Step, name: str) -> float:
    """Purity of the best of all partitions of the samples into as many clusters as there are training classes."""
    assert own.features is not None
    assert own.target is not None
    assert train.target is not None
    labels: list[Any] = own.target.tolist()
    if own.target.is_floating_point():
        ordered = train.target.tolist()
        labels, count = [value > median(ordered) for value in labels], 2
    else:
        count = len(set(train.target.tolist()))
    rows = own.features[name].tolist()
    for column in range(len(rows[0])):
        values = [row[column] for row in rows]
        low, high = min(values), max(values)
        for row in rows:
            row[column] = (row[column] - low) / (high - low) * 2 - 1
    best, found = float("inf"), 0.0
    for code in range(count ** (len(rows) - 1)):
        assigned = [code // count**i % count for i in range(len(rows))]
        members = [[i for i, c in enumerate(assigned) if c == cluster] for cluster in range(count)]
        if not all(members):
            continue
        error = 0.0
        for own_rows in members:
            for column in range(len(rows[0])):
                values = [rows[i][column] for i in own_rows]
                mean = sum(values) / len(values)
                error += sum((value - mean) ** 2 for value in values)
        if error < best - 1e-12:
            best = error
            found = sum(max(Counter(labels[i] for i in m).values()) for m in members) / len(rows)
    return found


def test_frozen_and_foreign_parameters_stay() -> None:
    run = Run(Setting(lambda m, n: Relearning(encoders(m, n), every=1)), 2)
    run.train(data(2))
    before = run.parameters()
    run.end_epoch(data(2))
    after = run.parameters()
    outside = [key for key in before if not key.startswith("encoders")]
    assert same({key: after[key] for key in outside}, {key: before[key] for key in outside})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 0.0}, r"`strength` should be positive.* Found `strength = 0.0`"),
        ({"every": 0}, "`every` should be at least 1. Found `every = 0`"),
        ({"times": 0}, "`times` should be at least 1, or None for no limit. Found `times = 0`"),
        ({"bins": 1}, "`bins` should be at least 2. Found `bins = 1`"),
    ],
)
def test_parameters_out_of_range(arguments: dict[str, Any], message: str) -> None:
    text, audio = layers(0.0, 0.0)
    with pytest.raises(ValueError, match=message):
        Relearning(Modalities(text=text, audio=audio), **arguments)


def test_misuse() -> None:
    text, audio = layers(0.0, 0.0)
    balancer = Relearning(Modalities(text=text, audio=audio), every=1)
    own = step(Y, text=GOOD, audio=BAD)
    with pytest.raises(RuntimeError, match="knows no start to go back to"):
        balancer.end_epoch(train=[own], val=[own])
    with pytest.raises(ValueError, match=r"`Step.features`. Found \['text'\], missing \['audio'\]"):
        balancer(step(Y, text=GOOD))
    balancer(own)
    with pytest.raises(ValueError, match=r"Found none in `val`. Call `balancer.end_epoch\(train=steps, val=steps\)`"):
        balancer.end_epoch(train=[own])
