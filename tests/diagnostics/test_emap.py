from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest
from tests.diagnostics.subjects import formula, signs

from equipoise.diagnostics.emap import measure_emap
from equipoise.diagnostics.subject import Subject


def _mixed(count: int, seed: int = 0) -> Subject:
    random = np.random.default_rng(seed)
    values = {name: random.normal(size=count) for name in "ab"}
    target = values["a"] + 2 * values["b"] + values["a"] * values["b"]
    return formula(lambda a, b: np.sin(2 * a) + 2 * b + a * b + 1, values, target)


def test_two_modalities_are_the_papers_three_means() -> None:
    subject = _mixed(17)
    rows = np.arange(17)
    table = np.stack([subject.mixed({"a": np.full(17, i), "b": rows}) for i in rows])
    found = measure_emap(subject)
    assert (found.exact, found.mixes) == (True, 17**2)
    np.testing.assert_allclose(found.samples, table.mean(axis=1) + table.mean(axis=0) - table.mean())
    target = subject.target
    assert found.additive.value == pytest.approx(1 - np.square(target - found.samples).mean() / target.var())
    assert found.gain.value == pytest.approx(found.score.value - found.additive.value)
    left = table - table.mean(axis=0) - table.mean(axis=1)[:, None] + table.mean()
    assert found.interaction_share == pytest.approx(np.square(left).mean() / table.var())
    assert found.additive.error == 0.0


def test_three_modalities_and_classes_are_least_squares_on_all_mixes() -> None:
    random = np.random.default_rng(0)
    values = {name: random.normal(size=(5, 3)) for name in "abc"}
    subject = formula(lambda a, b, c: a * b + np.maximum(b, c) + c, values, np.arange(5) % 3, task="classification")
    found = measure_emap(subject)
    mixes = np.array(list(product(range(5), repeat=3)))
    table = subject.mixed({name: mixes[:, k] for k, name in enumerate("abc")})
    design = np.concatenate([np.eye(5)[mixes[:, k]] for k in range(3)], axis=1)
    fitted, *_ = np.linalg.lstsq(design, table, rcond=None)
    np.testing.assert_allclose(found.samples, np.concatenate([np.eye(5)] * 3, axis=1) @ fitted, atol=1e-10)
    left = np.square(table - design @ fitted).sum()
    assert found.interaction_share == pytest.approx(left / np.square(table - table.mean(axis=0)).sum())


@pytest.mark.parametrize("budget", [10**6, 100], ids=["all", "drawn"])
def test_an_additive_model_is_its_own_projection(budget: int) -> None:
    random = np.random.default_rng(0)
    values = {name: random.normal(size=60) for name in "abc"}
    subject = formula(lambda a, b, c: np.exp(a) + np.abs(b) - c**3 + 5, values, values["a"])
    found = measure_emap(subject, budget=budget)
    assert found.exact == (budget > 60**3)
    np.testing.assert_allclose(found.samples, subject.predictions())
    assert found.gain.value == pytest.approx(0, abs=1e-8)
    assert found.interaction_share == pytest.approx(0, abs=1e-12)
    assert found.gain.error < 1e-9


def test_a_product_of_signs_has_nothing_additive() -> None:
    values = signs(10, "ab")
    subject = formula(lambda a, b: a * b, values, values["a"] * values["b"])
    found = measure_emap(subject)
    np.testing.assert_allclose(found.samples, 0, atol=1e-12)
    assert (found.score.value, found.additive.value, found.gain.value) == pytest.approx((1, 0, 1))
    assert found.interaction_share == pytest.approx(1)


def test_the_score_of_drawn_mixes_errs_as_it_says_and_to_neither_side() -> None:
    subject = _mixed(200)
    exact = measure_emap(subject, budget=200**2)
    found = [measure_emap(subject, budget=1, seed=seed) for seed in range(25)]
    assert {(each.mixes, each.exact) for each in found} == {(3200, False)}
    gains = np.array([each.gain.value for each in found])
    error = np.mean([each.gain.error for each in found])
    assert error == pytest.approx(gains.std(ddof=1), rel=0.35)
    assert gains.mean() == pytest.approx(exact.gain.value, abs=3 * error / 5)
    # The projections themselves are noisy, and that alone would cost them more than this.
    noisy = exact.score.value - np.mean([subject.points_of(each.samples).mean() for each in found])
    assert noisy > exact.gain.value + 4 * error / 5
    assert np.mean([each.interaction_share for each in found]) == pytest.approx(exact.interaction_share, rel=0.05)
    assert measure_emap(subject, budget=200 * 100).gain.error < error


def test_a_model_that_says_one_thing_has_no_share_of_interactions() -> None:
    found = measure_emap(formula(lambda a, b: 0 * a + 0.1, signs(2, "ab"), np.arange(8.0)))
    assert np.isnan(found.interaction_share)
    assert found.gain.value == pytest.approx(0)


def test_it_is_json_and_tells_progress() -> None:
    told: list[tuple[int, int]] = []
    found = measure_emap(_mixed(100), progress=lambda *x: told.append(x))
    assert told == [(8192, 10_000), (10_000, 10_000)]
    assert json.loads(json.dumps(found.to_dict()))["exact"] is True

    def alone(a: Any) -> Any:
        return a

    with pytest.raises(ValueError, match="Found a and `budget = 30000`"):
        measure_emap(formula(alone, {"a": np.ones(3)}, np.arange(3.0)))
    with pytest.raises(ValueError, match="`budget = 0`"):
        measure_emap(_mixed(3), budget=0)
