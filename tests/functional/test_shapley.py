from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from math import factorial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from equipoise.functional import shapley_responses

NAMES = ("text", "audio", "vision", "touch")


def game(count: int) -> Callable[[frozenset[str]], Tensor]:
    """A value [2, 3] for each set of names, without any structure."""

    def value(kept: frozenset[str]) -> Tensor:
        seed = sum(2**i for i, name in enumerate(NAMES[:count]) if name in kept)
        return torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    return value


def over_permutations(value: Callable[[frozenset[str]], Tensor], names: Sequence[str], name: str) -> Tensor:
    """The textbook: what a name adds to those before it, averaged over every order; nothing is worth zero."""
    total = torch.zeros(2, 3, dtype=torch.float64)
    for order in permutations(names):
        before = frozenset(order[: order.index(name)])
        total += value(before | {name}) - (value(before) if before else 0)
    return total / factorial(len(names))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_is_the_shapley_value_and_adds_up_to_the_output(count: int) -> None:
    value, names = game(count), NAMES[:count]
    found = shapley_responses(value, names)
    assert tuple(found) == names
    for name in names:
        assert_close(found[name], over_permutations(value, names, name))
    assert_close(sum(found.values()), value(frozenset(names)))  # Eq. 2


def test_two_modalities_are_equation_3() -> None:
    outputs = {"text": 3.0, "audio": 4.0, "audiotext": 11.0}
    found = shapley_responses(lambda kept: torch.tensor(outputs["".join(sorted(kept))]), ("text", "audio"))
    assert {name: float(x) for name, x in found.items()} == {"text": (11 - 4 + 3) / 2, "audio": (11 - 3 + 4) / 2}


def test_three_modalities_by_hand() -> None:
    # text: 1/3 φ(t) + 1/6 (φ(ta) - φ(a)) + 1/6 (φ(tv) - φ(v)) + 1/3 (φ(tav) - φ(av))
    outputs = {"t": 6, "a": 12, "v": 18, "at": 30, "tv": 42, "av": 54, "atv": 90}
    found = shapley_responses(lambda kept: torch.tensor(float(outputs["".join(sorted(kept))])), ("t", "a", "v"))
    assert float(found["t"]) == pytest.approx(6 / 3 + (30 - 12) / 6 + (42 - 18) / 6 + (90 - 54) / 3)  # 21
    assert float(found["a"]) == pytest.approx(12 / 3 + (30 - 6) / 6 + (54 - 18) / 6 + (90 - 42) / 3)  # 30
    assert float(found["v"]) == pytest.approx(18 / 3 + (42 - 6) / 6 + (54 - 12) / 6 + (90 - 30) / 3)  # 39


@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_subset_is_asked_once_and_the_full_one_only_if_it_is_not_known(count: int) -> None:
    asked: list[frozenset[str]] = []

    def value(kept: frozenset[str]) -> Tensor:
        asked.append(kept)
        return torch.ones(1)

    names = NAMES[:count]
    shapley_responses(value, names)
    assert len(asked) == len(set(asked)) == 2**count - 1
    assert frozenset() not in asked
    asked.clear()
    shapley_responses(value, names, full=torch.zeros(1))
    assert len(asked) == 2**count - 2
    assert frozenset(names) not in asked


def test_a_batched_predict_is_called_once_and_gives_the_same() -> None:
    value, calls = game(3), []

    class Batched:
        def __call__(self, kept: frozenset[str]) -> Tensor:
            raise AssertionError("one by one")

        def batched(self, subsets: Sequence[frozenset[str]]) -> list[Tensor]:
            calls.append(len(subsets))
            return [value(kept) for kept in subsets]

    found, expected = shapley_responses(Batched(), NAMES[:3]), shapley_responses(value, NAMES[:3])
    assert calls == [7]
    for name in NAMES[:3]:
        assert_close(found[name], expected[name])


def test_gradients_flow_through_every_response() -> None:
    """Under ``no_grad`` the coefficients of AGM would change nothing."""
    weight = torch.tensor([1.0, 2.0], requires_grad=True)

    def value(kept: frozenset[str]) -> Tensor:
        return weight[0] * ("text" in kept) + weight[1] * ("audio" in kept)

    found = shapley_responses(value, ("text", "audio"))
    assert torch.autograd.grad(found["text"], weight, retain_graph=True)[0].tolist() == [1.0, 0.0]
    assert torch.autograd.grad(found["audio"], weight)[0].tolist() == [0.0, 1.0]


def test_one_modality_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"at least two names. Found \('text',\)"):
        shapley_responses(lambda _: torch.ones(1), ["text"])
