"""Linear probes read what is there, and nothing else; t-SNE gives one picture a seed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from equipoise.diagnostics import _linear
from equipoise.diagnostics._linear import PENALTIES, fit_linear, score, standardised
from equipoise.diagnostics.probes import _folds, linear_probe, linear_probes, tsne

Floats = npt.NDArray[np.float64]


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("width", [4, 90])  # fewer and more features than samples
@pytest.mark.parametrize("outputs", [(), (2,)])
def test_regression_is_ridge_as_scikit_learn_has_it_with_the_best_penalty(width: int, outputs: tuple[int, ...]) -> None:
    x, valid = standardised([normal(0, 60, width), normal(1, 40, width)])
    weights = normal(2, width, *outputs)
    y, y_valid = (part @ weights + 3 * normal(seed, len(part), *outputs) for seed, part in ((3, x), (4, valid)))
    predict, penalty = fit_linear("regression", x, y, valid, y_valid)
    errors = {}
    for each in PENALTIES:
        errors[each] = np.square(Ridge(alpha=each * 60).fit(x, y).predict(valid) - y_valid).mean()
    assert penalty == min(errors, key=lambda each: errors[each])
    np.testing.assert_allclose(predict(valid), Ridge(alpha=penalty * 60).fit(x, y).predict(valid), rtol=1e-8)


@pytest.mark.parametrize("width", [4, 90])
@pytest.mark.parametrize("classes", [2, 4])
def test_classification_is_logistic_regression_as_scikit_learn_has_it(width: int, classes: int) -> None:
    x, valid = standardised([normal(0, 60, width), normal(1, 40, width)])
    y, y_valid = (
        (part @ normal(2, width, classes) + 2 * normal(seed, len(part), classes)).argmax(axis=1)
        for seed, part in ((3, x), (4, valid))
    )
    predict, penalty = fit_linear("classification", x, y, valid, y_valid, classes=classes)
    model = LogisticRegression(C=1 / (60 * penalty), max_iter=5000, tol=1e-8).fit(x, y)
    logits = predict(valid)
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    assert logits.shape == (40, classes)
    np.testing.assert_allclose(likely, model.predict_proba(valid), atol=5e-3)


def test_a_class_that_was_not_seen_is_never_the_answer() -> None:
    x, y = normal(0, 30, 2), np.array([0, 3] * 15)
    x[y == 3] += 3
    predict, _ = fit_linear("classification", x, y, x, y, classes=5)
    logits = predict(x)
    assert logits.shape == (30, 5)
    assert set(logits.argmax(axis=1).tolist()) == {0, 3}
    one, _ = fit_linear("classification", x, np.full(30, 2), x, np.full(30, 2), classes=4)
    assert (one(x).argmax(axis=1) == 2).all()


def test_features_are_standardised_by_the_first_split_and_constant_ones_left_out() -> None:
    first = np.array([[1.0, 7.0, 0.1], [3.0, 7.0, 0.1]])
    ours, theirs = standardised([first, np.array([[5.0, 9.0, 0.3]])])
    assert ours.tolist() == [[-1], [1]]
    assert theirs.tolist() == [[3]]
    together = standardised([np.array([[0.0, 0.0], [2.0, 14.0]])], together=True)[0]
    np.testing.assert_allclose(together, [[-0.2, -1.4], [0.2, 1.4]])  # sqrt((1 + 49) / 2) = 5


def test_a_representation_that_holds_the_target_is_read_without_error() -> None:
    x = normal(0, 120, 5)
    found = linear_probe(x, x @ normal(1, 5, 2), "regression")
    assert found.score.value > 0.999
    classes = linear_probe(x, (x[:, 0] > 0).astype(np.int64), "classification")
    assert classes.score.value > 0.95
    assert classes.score.p == 0.001
    assert classes.score.chance == pytest.approx(0.5, abs=0.02)
    assert np.mean(classes.by_fold) == pytest.approx(classes.score.value)
    assert classes.width == 5
    assert json.loads(json.dumps(classes.to_dict()))["value"] == classes.score.value


def test_a_representation_of_noise_is_found_significant_as_rarely_as_it_should() -> None:
    found = [linear_probe(normal(seed, 60, 3), normal(99 + seed, 60), "regression", seed=seed) for seed in range(20)]
    assert sum(probe.score.p <= 0.05 for probe in found) <= 3
    assert np.mean([probe.score.value for probe in found]) == pytest.approx(-0.05, abs=0.05)


def test_the_interval_of_an_accuracy_is_the_binomial_one() -> None:
    target = np.zeros(400, dtype=np.int64)
    target[:100] = 1
    logits = np.tile([1.0, 0.0], (400, 1))  # right for 300 of 400
    found = score("accuracy", logits, target)
    deviation = np.sqrt(0.75 * 0.25 / 400)
    assert found.value == 0.75
    assert (found.low, found.high) == pytest.approx((0.75 - 1.96 * deviation, 0.75 + 1.96 * deviation), abs=0.006)
    assert found.chance == 0.75
    assert found.p == 1
    assert found.groups is None


def test_features_of_the_video_tell_nothing_where_the_labels_are_the_videos() -> None:
    """Both sides constant inside a group: 12 groups are 12 samples, however many clips they have."""
    rejected = {"samples": 0, "groups": 0}
    for seed in range(40):
        names = np.repeat(np.arange(12), 20)
        outputs, target = (normal(2 * seed + side, 12)[names] for side in (0, 1))
        for kind, groups in (("samples", None), ("groups", [str(name) for name in names])):
            found = score("neg_mae", outputs, target, groups=groups, resamples=1, permutations=99, seed=seed)
            rejected[kind] += found.p <= 0.05
    assert rejected["samples"] >= 8  # what ignoring the groups would claim
    assert rejected["groups"] <= 5


def test_groups_widen_the_interval_as_groups_are_fewer_than_samples() -> None:
    names = np.repeat(np.arange(30), 25)
    target, outputs = np.zeros(750), normal(0, 30)[names]
    alone, together = (
        score("neg_mae", outputs, target, groups=groups, permutations=1)
        for groups in (None, names.astype(str).tolist())
    )
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(5, rel=0.25)
    assert together.groups == 30


def test_telling_speakers_apart_is_worth_nothing_when_speakers_are_held_out() -> None:
    speakers = np.repeat(np.arange(20), 6)
    labels = np.random.default_rng(0).permutation(np.arange(20) % 2)[speakers]
    x = np.eye(20)[speakers] + 0.01 * normal(1, 120, 20)
    assert linear_probe(x, labels, "classification").score.value > 0.95
    held = linear_probe(x, labels, "classification", groups=speakers.astype(str).tolist())
    assert held.score.value < 0.7
    assert held.score.p > 0.05


def test_folds_are_alike_in_their_targets_and_keep_groups_together() -> None:
    target = np.array([0] * 50 + [1] * 25 + [2] * 10)
    fold = _folds(target, np.arange(85), 5, 0)
    assert [[int(((fold == f) & (target == c)).sum()) for c in range(3)] for f in range(5)] == [[10, 5, 2]] * 5
    groups = np.arange(85) // 5
    together = _folds(target, groups, 5, 0)
    assert all(len(set(together[groups == group].tolist())) == 1 for group in range(17))


def test_probes_share_their_folds() -> None:
    x, target = normal(0, 60, 4), normal(1, 60)
    ticks: list[tuple[int, int]] = []
    found = linear_probes({"a": x, "b": x}, target, "regression", progress=lambda *at: ticks.append(at))
    assert found["a"] == found["b"] == linear_probe(x, target, "regression")
    assert ticks == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": normal(0, 19, 2)}, r"should be \[20, d\]"),
        ({"x": np.full((20, 2), np.inf)}, "diverged"),
        ({"folds": 2}, "Parameter `folds`"),
        ({"folds": 21}, "20 samples"),
        ({"groups": ["a"] * 10 + ["b"] * 10}, "2 groups"),
        ({"groups": ["a", "b", "c"]}, "groups"),
    ],
)
def test_bad_input_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_probe(**{"x": normal(0, 20, 2), "target": normal(1, 20), "task": "regression", **given})


def test_a_picture_is_the_same_for_a_seed_and_keeps_clusters_apart() -> None:
    centres = 20 * normal(0, 3, 60)
    x = centres[np.arange(90) % 3] + normal(1, 90, 60)
    first, again, other = (tsne(x, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.points, again.points)
    assert first.points.shape == (90, 2)
    assert first.perplexity == pytest.approx(89 / 3)
    assert other.points.shape == (90, 2)
    distance = np.linalg.norm(first.points[:, None] - first.points[None], axis=2)
    same = (np.arange(90) % 3)[:, None] == np.arange(90) % 3
    nearest = (distance + 1e9 * np.eye(90)).argmin(axis=1)
    assert same[np.arange(90), nearest].all()


def test_of_many_samples_some_are_drawn_the_same_for_each_representation() -> None:
    first, second = (tsne(normal(seed, 80, 3), most=30) for seed in (0, 1))
    assert first.rows.tolist() == second.rows.tolist() == sorted(set(first.rows.tolist()))
    assert len(first.points) == 30
    assert json.loads(json.dumps(first.to_dict()))["rows"] == first.rows.tolist()


def test_representations_without_a_picture_have_a_plain_one_or_an_error() -> None:
    assert not tsne(np.full((9, 4), 0.1)).points.any()
    assert np.isfinite(tsne(normal(0, 12, 1)).points).all()
    for bad in (normal(0, 3, 2), normal(0, 9), np.full((9, 2), np.nan)):
        with pytest.raises(ValueError, match="Parameter `x` should be finite"):
            tsne(bad)


def test_the_linear_algebra_runs_on_one_thread() -> None:
    from threadpoolctl import threadpool_info

    with _linear.one_thread():
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
