from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest
from tests.diagnostics.subjects import formula, signs

from equipoise.diagnostics.estimates import jackknife_error
from equipoise.diagnostics.responses import measure_responses
from equipoise.diagnostics.shapley import shapley_values
from equipoise.diagnostics.subject import Subject
from equipoise.functional.statistics import resample_rows


def test_responses_of_a_sum_with_a_bias_and_a_product() -> None:
    """f = 3 + 2a + b + ab: the bias is divided evenly, the product too."""
    random = np.random.default_rng(0)
    values = {"a": random.normal(size=200), "b": random.normal(size=200)}
    target = 2 * values["a"] + values["b"]
    found = measure_responses(formula(lambda a, b: 3 + 2 * a + b + a * b, values, target))
    half = 1.5 + values["a"] * values["b"] / 2
    np.testing.assert_allclose(found.samples["a"], 2 * values["a"] + half)
    np.testing.assert_allclose(found.samples["b"], values["b"] + half)
    assert found.permutations == 0
    wrong = np.square(target - found.samples["a"]).mean()
    assert found.modalities["a"].score.value == pytest.approx(1 - wrong / target.var())
    wrong = np.square(target - 3 - 2 * values["a"]).mean()
    assert found.modalities["a"].alone.value == pytest.approx(1 - wrong / target.var())
    assert found.differences["a - b"].value == pytest.approx(
        found.modalities["a"].score.value - found.modalities["b"].score.value
    )
    assert found.modalities["a"].deviation == pytest.approx(found.samples["a"].std())
    assert json.loads(json.dumps(found.to_dict()))["modalities"]["b"]["error"] == 0.0


def test_shares_are_covariances_and_add_up() -> None:
    random = np.random.default_rng(0)
    values = {"a": random.normal(size=300), "b": random.normal(size=300), "c": np.zeros(300)}
    subject = formula(lambda a, b, c: 2 * a + b + a * b + 7, values, values["a"])
    found = measure_responses(subject)
    output = subject.predictions()
    for name in "abc":
        covariance = np.cov(found.samples[name], output, ddof=0)
        assert found.modalities[name].share == pytest.approx(covariance[0, 1] / covariance[1, 1])
        assert found.modalities[name].share_low <= found.modalities[name].share <= found.modalities[name].share_high
    assert sum(each.share for each in found.modalities.values()) == pytest.approx(1)
    # All that c brings is a third of the 7, the same for every sample.
    assert found.modalities["c"].share == pytest.approx(0, abs=1e-12)


def test_the_interval_of_a_share_is_that_of_resampled_covariances() -> None:
    random = np.random.default_rng(0)
    values = {"a": random.normal(size=12), "b": random.normal(size=12)}
    subject = formula(lambda a, b: 2 * a + b + a * b + 7, values, values["a"])
    found = measure_responses(subject, seed=4)
    drawn = [
        np.cov(found.samples["b"][rows], subject.predictions()[rows], ddof=0)
        for block in resample_rows(12, 1000, 4)
        for rows in block.numpy()
    ]
    expected = np.quantile([each[0, 1] / each[1, 1] for each in drawn], [0.025, 0.975])
    assert [found.modalities["b"].share_low, found.modalities["b"].share_high] == pytest.approx(expected)


def test_the_share_of_logits_does_not_see_what_softmax_does_not() -> None:
    """Sound only lifts all logits of a sample alike: it says nothing of the class."""
    random = np.random.default_rng(0)
    values = {"sound": 5 * random.normal(size=(30, 1)) * np.ones(3), "sight": random.normal(size=(30, 3))}
    subject = formula(lambda sound, sight: sound + sight, values, np.arange(30) % 3, task="classification")
    found = measure_responses(subject)
    assert found.modalities["sound"].share == pytest.approx(0, abs=1e-12)
    assert found.modalities["sight"].share == pytest.approx(1)


def test_a_constant_output_has_no_share() -> None:
    found = measure_responses(formula(lambda a, b: np.full(len(a), 0.1), signs(3, "ab"), np.arange(12.0)))
    assert np.isnan([found.modalities["a"].share, found.modalities["a"].share_low]).all()


def test_accuracy_is_of_each_modalitys_own_logits() -> None:
    """Sound is right on the first half, sight on the second and twice as loud."""
    classes = np.array([0, 1, 2, 0, 1, 2])
    right, wrong = np.eye(3)[classes], np.eye(3)[(classes + 1) % 3]
    first = (np.arange(6) < 3)[:, None]
    values = {"sound": np.where(first, right, wrong), "sight": 2 * np.where(first, wrong, right)}
    subject = formula(lambda sound, sight: sound + sight, values, classes, task="classification")
    found = measure_responses(subject)
    np.testing.assert_allclose(found.samples["sound"], values["sound"])
    assert [found.modalities[name].score.value for name in values] == [0.5, 0.5]
    assert [found.modalities[name].alone.value for name in values] == [0.5, 0.5]
    assert found.score.value == 0.5
    assert found.metric == "accuracy"


def _seven() -> Subject:
    random = np.random.default_rng(0)
    names = "abcdefg"
    values = {name: random.normal(size=40) for name in names}
    weights = dict(zip(names, range(1, 8), strict=True))

    def model(**given: np.ndarray) -> np.ndarray:
        linear = sum(weights[name] * given[name] for name in names)
        return np.asarray(linear + 3 * given["a"] * given["b"] * given["c"] + 4 * np.maximum(given["d"], given["e"]))

    return formula(model, values, 3 * values["g"])


def test_drawn_orders_add_up_and_err_as_they_say() -> None:
    subject = _seven()
    exact = measure_responses(subject, exact_up_to=7)
    found = measure_responses(subject, permutations=100, seed=3)
    assert (exact.permutations, found.permutations) == (0, 100)
    np.testing.assert_allclose(sum(found.samples.values()), subject.predictions())
    np.testing.assert_allclose(found.samples["g"], exact.samples["g"])  # nothing interacts with it
    assert found.modalities["g"].error < 1e-12
    away = []
    for seed in range(100):
        drawn = shapley_values(subject.predictions, subject.modalities, permutations=100, seed=seed)
        away.append((drawn.values["a"] - exact.samples["a"]) / drawn.errors("a"))
    # Twenty groups: Student's t with 19 degrees of freedom, of variance 19/17; over samples that share their orders.
    assert np.square(away).mean() == pytest.approx(19 / 17, rel=0.25)
    assert abs(np.mean(away)) < 0.25
    scores, errors = [], []
    for seed in range(30):
        drawn = shapley_values(subject.predictions, subject.modalities, permutations=20, seed=seed)
        assert drawn.groups is not None
        scores.append(subject.points_of(drawn.values["a"]).mean())
        errors.append(jackknife_error(lambda each: float(subject.points_of(each).mean()), drawn.groups["a"]))
    assert np.mean(errors) == pytest.approx(np.std(scores, ddof=1), rel=0.4)
    told = measure_responses(subject, permutations=20, seed=29)
    assert told.modalities["a"].score.error == pytest.approx(errors[-1])
    assert told.modalities["a"].error == pytest.approx(drawn.errors("a").mean())
    assert told.differences["a - g"].error == pytest.approx(errors[-1])  # what is said of g is exact


def test_all_orders_drawn_are_the_exact_value() -> None:
    """The mean over all orders of four modalities, by hand."""
    random = np.random.default_rng(0)
    values = {name: random.normal(size=5) for name in "abcd"}
    subject = formula(lambda a, b, c, d: (1 + a) * (2 + b) * (c - d), values, values["a"])
    by_hand = np.zeros(5)
    for order in permutations("abcd"):
        before = frozenset(order[: order.index("b")])
        empty = np.zeros(5) if not before else subject.predictions(before)
        by_hand += (subject.predictions(before | {"b"}) - empty) / 24
    np.testing.assert_allclose(measure_responses(subject).samples["b"], by_hand)


def test_one_modality_is_the_whole_output_and_progress_is_told() -> None:
    subject = formula(lambda a: 2 * a + 1, {"a": np.arange(4.0)}, np.arange(4.0))
    np.testing.assert_array_equal(measure_responses(subject).samples["a"], subject.predictions())
    told: list[tuple[int, int]] = []
    measure_responses(_seven(), exact_up_to=7, progress=lambda *x: told.append(x))
    assert told == [(n, 127) for n in range(1, 128)]
    told.clear()
    measure_responses(_seven(), permutations=30, progress=lambda *x: told.append(x))
    assert told == [(n, 40) for n in range(1, 41)]
    with pytest.raises(ValueError, match="`permutations = 0`"):
        measure_responses(_seven(), permutations=0)
