from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from tests.diagnostics.subjects import formula, signs

from equipoise.diagnostics.interactions import measure_interactions
from equipoise.diagnostics.subject import Subject


def _only(subject: Subject) -> tuple[float, float, float, float]:
    (pair,) = measure_interactions(subject).pairs.values()
    return pair.index.value, pair.synergy.value, pair.redundancy.value, pair.strength


def test_a_product_of_signs_is_synergy_alone() -> None:
    values = signs(20, "ab")
    assert _only(formula(lambda a, b: a * b, values, values["a"] * values["b"])) == pytest.approx((1, 1, 0, 1))


def test_a_copy_is_redundancy_alone() -> None:
    """v of one is 3/4, of both 1: each adds a quarter to the other and half would be missing twice."""
    a = signs(20, "ab")["a"]
    assert _only(formula(lambda a, b: (a + b) / 2, {"a": a, "b": a}, a)) == pytest.approx((-0.5, 0, 0.5, 0))


def test_a_sum_of_independent_modalities_has_neither() -> None:
    values = signs(20, "ab")
    subject = formula(lambda a, b: 2 * a + b, values, 2 * values["a"] + values["b"])
    assert _only(subject) == pytest.approx((0, 0, 0, 0), abs=1e-12)


def test_redundancy_of_a_sum_is_the_mean_product_of_its_parts() -> None:
    random = np.random.default_rng(0)
    values = {"a": random.normal(size=90), "b": random.normal(size=90)}
    values["b"] += values["a"]
    target = random.normal(size=90) + values["a"]
    index, synergy, redundancy, _ = _only(formula(lambda a, b: a**3 + np.abs(b) + 2, values, target))
    assert synergy == pytest.approx(0, abs=1e-12)
    assert redundancy == pytest.approx(2 * np.mean(values["a"] ** 3 * np.abs(values["b"])) / target.var())
    assert index == pytest.approx(-redundancy)


def test_an_interaction_that_hurts_is_negative_synergy() -> None:
    values = signs(20, "ab")
    subject = formula(lambda a, b: a + a * b, values, values["a"])
    assert _only(subject) == pytest.approx((-1, -1, 0, 0.5**0.5))


def test_noise_that_is_taken_off_is_negative_redundancy() -> None:
    """Text is the target with noise, sound is the noise: only the difference is clean."""
    given = signs(20, "yn")
    values = {"text": given["y"] + given["n"], "sound": given["n"]}
    index, synergy, redundancy, strength = _only(formula(lambda text, sound: text - sound, values, given["y"]))
    # v: nothing 0, text 0, sound -1, both 1.
    assert (index, synergy, redundancy, strength) == pytest.approx((2, 0, -2, 0))


def _by_orders(subject: Subject, one: str, other: str) -> float:
    """The index as a mean over orders in which the pair stands together, the pair taken for one player."""
    others = [name for name in subject.modalities if name not in (one, other)]
    found = []
    for order in permutations([*others, "pair"]):
        before = set(order[: order.index("pair")])
        both, first, second, none = (subject.score(before | extra) for extra in ({one, other}, {one}, {other}, set()))
        found.append(both - first - second + none)
    return float(np.mean(found))


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_index_is_that_of_grabisch_and_roubens(task: Any) -> None:
    random = np.random.default_rng(0)
    shape = (70,) if task == "regression" else (70, 3)
    values = {name: random.normal(size=shape) for name in "abcd"}
    target = random.normal(size=70) if task == "regression" else random.integers(3, size=70)

    def model(a: Any, b: Any, c: Any, d: Any) -> Any:
        return a * b + np.maximum(c, d) * (1 + a) + d

    subject = formula(model, values, target, task=task)
    found = measure_interactions(subject)
    assert list(found.pairs) == [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
    for (one, other), pair in found.pairs.items():
        assert pair.index.value == pytest.approx(_by_orders(subject, one, other))
        assert pair.index.value == pytest.approx(pair.synergy.value - pair.redundancy.value)
        assert found.samples[one, other]["synergy"].mean() == pytest.approx(pair.synergy.value)
        assert pair.index.error == 0.0
    assert found.pairs["b", "c"].strength == pytest.approx(0, abs=1e-12)
    assert found.pairs["a", "b"].strength > 0.1


def test_the_strength_of_logits_does_not_see_what_softmax_does_not() -> None:
    values = {"a": np.ones((6, 2)), "b": np.eye(2)[np.arange(6) % 2]}
    shifted = formula(
        lambda a, b: a * b.sum(axis=1, keepdims=True) + b, values, np.arange(6) % 2, task="classification"
    )
    (pair,) = measure_interactions(shifted).pairs.values()
    assert pair.strength == pytest.approx(0, abs=1e-12)


def test_of_many_modalities_company_is_drawn_with_its_error() -> None:
    values = signs(1, "abcde")

    def model(a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
        return a * b * (1 + c) + d + e

    subject = formula(model, values, model(**values) + values["a"] * values["b"])
    exact = measure_interactions(subject)
    assert exact.draws == 0
    scores, errors = [], []
    for seed in range(16):
        found = measure_interactions(subject, exact_up_to=4, draws=16, seed=seed)
        assert found.draws == 16
        scores.append(found.pairs["a", "b"].synergy.value)
        errors.append(found.pairs["a", "b"].synergy.error)
        assert found.pairs["d", "e"].index.value == pytest.approx(exact.pairs["d", "e"].index.value, abs=1e-9)
    assert np.mean(errors) == pytest.approx(np.std(scores, ddof=1), rel=0.5)
    assert np.mean(scores) == pytest.approx(exact.pairs["a", "b"].synergy.value, abs=4 * np.mean(errors) / 4)


def test_it_is_json_and_says_what_it_cannot_do() -> None:
    values = signs(2, "abc")
    told: list[tuple[int, int]] = []
    found = measure_interactions(
        formula(lambda a, b, c: a * b, values, values["c"]), progress=lambda *x: told.append(x)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert list(json.loads(json.dumps(found.to_dict()))["pairs"]) == ["a + b", "a + c", "b + c"]
    with pytest.raises(ValueError, match="Found a and `draws = 64`"):
        measure_interactions(formula(lambda a: a, {"a": np.ones(2)}, np.arange(2.0)))
    with pytest.raises(ValueError, match="`draws = 1`"):
        measure_interactions(formula(lambda a, b: a, signs(1, "ab"), np.arange(4.0)), draws=1)
