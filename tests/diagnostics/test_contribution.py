from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from tests.diagnostics.subjects import formula, signs

from equipoise.diagnostics.contribution import constant_score, measure_contributions
from equipoise.diagnostics.subject import Subject


def _sum(count: int = 50) -> Subject:
    """y = 2a + b of independent signs, and a model that knows: shares 4/5 and 1/5."""
    values = signs(count, "abc")
    return formula(lambda a, b, c: 2 * a + b, values, 2 * values["a"] + values["b"])


def test_a_sum_of_independent_modalities_adds_up_by_removal_and_shapley() -> None:
    found = measure_contributions(_sum())
    assert (found.score.value, found.nothing, found.constant) == pytest.approx((1, 0, 0), abs=1e-12)
    for name, share in {"a": 0.8, "b": 0.2, "c": 0.0}.items():
        each = found.modalities[name]
        assert each.removal.value == pytest.approx(share)
        assert each.shapley.value == pytest.approx(share)
        assert found.alone[name].value == pytest.approx(share)
        # Exchanged with an independent sign, the error is that of two of them: twice the share.
        assert each.exchange.value == pytest.approx(2 * share, abs=4 * each.exchange.error + 1e-12)
        for kind in ("removal", "exchange", "shapley"):
            assert found.samples[kind][name].mean() == pytest.approx(getattr(each, kind).value)
    p = found.modalities["b"].removal.p
    assert p is not None
    assert p < 0.001
    assert found.modalities["c"].removal.p == found.modalities["c"].exchange.p == 1.0


def test_copies_replace_each_other() -> None:
    """Where b is a and the model takes the mean, either alone leaves a quarter of the error; both are relied on."""
    a = np.random.default_rng(0).normal(size=500)
    found = measure_contributions(formula(lambda a, b: (a + b) / 2, {"a": a, "b": a}, a))
    second = np.square(a).mean() / a.var()
    for each in found.modalities.values():
        assert each.removal.value == pytest.approx(second / 4)
        assert each.shapley.value == pytest.approx(second / 2)
        assert each.exchange.value == pytest.approx(1 / 2, rel=0.05)


def test_the_error_of_the_exchange_is_its_spread_over_seeds() -> None:
    subject = _sum(3)
    found = [measure_contributions(subject, repeats=4, seed=seed).modalities["a"] for seed in range(40)]
    assert np.mean([each.exchange.error for each in found]) == pytest.approx(
        np.std([each.exchange.value for each in found], ddof=1), rel=0.25
    )
    assert found[0].exchange.error == found[0].spread / 2
    assert np.isnan(measure_contributions(subject, repeats=1).modalities["a"].spread)


def test_no_sample_keeps_its_own_modality() -> None:
    count = 9
    seen: list[Any] = []

    def model(a: Any, b: Any) -> Any:
        seen.append((a, b))
        return a + b

    own = np.arange(count, dtype=np.float64)
    measure_contributions(formula(model, {"a": own, "b": own}, own), repeats=3)
    exchanged = [(a, b) for a, b in seen if len(a) == count and a.any() and b.any() and (a != b).any()]
    assert len(exchanged) == 6
    for a, b in exchanged:
        assert (a != b).all()
        assert sorted(a) == sorted(b) == sorted(own)
    assert sum((a == own).all() for a, _ in exchanged) == 3


def test_beyond_six_modalities_shapley_values_are_drawn_with_their_error() -> None:
    """Seven weak voters, of whom the majority wins: each is worth a seventh."""
    values = signs(1, "abcdefg")
    everyone = np.stack(list(values.values()))
    target = (everyone.sum(axis=0) > 0).astype(int)

    def model(**given: Any) -> Any:
        votes = np.sum(list(given.values()), axis=0)
        return np.stack([0 * votes + 0.01, votes], axis=1)

    subject = formula(model, values, target, task="classification")
    exact = measure_contributions(subject, exact_up_to=7, repeats=1)
    found = measure_contributions(subject, permutations=100, repeats=1)
    assert exact.permutations == 0
    assert found.permutations == 100
    gained = exact.score.value - exact.nothing
    assert sum(each.shapley.value for each in found.modalities.values()) == pytest.approx(gained)
    for name, each in found.modalities.items():
        assert exact.modalities[name].shapley.value == pytest.approx(gained / 7)
        assert exact.modalities[name].shapley.error == 0.0
        assert 0 < each.shapley.error < 0.1
        assert each.shapley.value == pytest.approx(gained / 7, abs=3.5 * each.shapley.error)


def test_the_best_constant() -> None:
    random = np.random.default_rng(1)
    classes = random.integers(4, size=60) * random.integers(2, size=60)
    logits = {"a": random.normal(size=(60, 4))}
    told = formula(lambda a: a, logits, classes, task="classification")
    assert constant_score(told) == DummyClassifier().fit(classes, classes).score(classes, classes)
    likely = formula(lambda a: a, logits, classes, task="classification", metric="log_likelihood")
    often = np.bincount(classes, minlength=4) / 60
    assert constant_score(likely) == pytest.approx(float((often * np.log(often)).sum()))
    values = random.exponential(size=61) - 0.3
    assert constant_score(formula(lambda a: a, {"a": values}, values)) == pytest.approx(0)
    absolute = formula(lambda a: a, {"a": values}, values, metric="neg_mae")
    assert constant_score(absolute) == pytest.approx(-np.abs(values - np.median(values)).mean())
    polarity = formula(lambda a: a, {"a": values}, values, metric="acc2_nn")
    assert constant_score(polarity) == max((values >= 0).mean(), (values < 0).mean())
    several = np.stack([values, -values], axis=1)
    assert constant_score(formula(lambda a: a, {"a": several}, several)) == pytest.approx(0)


def test_it_is_json_repeats_and_tells_progress() -> None:
    told: list[tuple[int, int]] = []
    found = measure_contributions(_sum(3), repeats=2, seed=5, progress=lambda *x: told.append(x))
    assert told == [(n, 8) for n in [*range(1, 7), 8]]
    assert found.to_dict() == measure_contributions(_sum(3), repeats=2, seed=5).to_dict()
    assert found.to_dict() != measure_contributions(_sum(3), repeats=2, seed=6).to_dict()
    assert json.loads(json.dumps(found.to_dict()))["metric"] == "r2"
    one = formula(lambda a: a, {"a": np.ones(1)}, np.ones(1), metric="neg_mae")
    with pytest.raises(ValueError, match="1 samples"):
        measure_contributions(one)
    with pytest.raises(ValueError, match="`repeats = 0`"):
        measure_contributions(_sum(), repeats=0)
