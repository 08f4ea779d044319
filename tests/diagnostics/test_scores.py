from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, r2_score

from equipoise.diagnostics.scores import check_metric, points


def test_scores_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    target, outputs = random.normal(size=50), random.normal(size=50)
    assert points("r2", outputs, target).mean() == pytest.approx(r2_score(target, outputs))
    assert points("neg_mae", outputs, target).mean() == pytest.approx(-mean_absolute_error(target, outputs))
    assert points("acc2_nn", outputs, target).mean() == accuracy_score(target >= 0, outputs >= 0)
    several, said = random.normal(size=(50, 3)), random.normal(size=(50, 3))
    assert points("r2", said, several).mean() == pytest.approx(r2_score(several, said))
    classes, logits = random.integers(3, size=50), 400 * random.normal(size=(50, 3))
    assert points("accuracy", logits, classes).mean() == accuracy_score(classes, logits.argmax(1))
    logits = logits / 400
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert points("log_likelihood", logits, classes).mean() == pytest.approx(-log_loss(classes, chances))
    assert np.isfinite(points("log_likelihood", 1e4 * logits, classes)).all()


def test_points_of_some_rows_are_those_rows_of_all() -> None:
    random = np.random.default_rng(0)
    rows = np.array([4, 4, 0, 9])
    target, outputs = random.normal(size=20), random.normal(size=20)
    for metric in ("r2", "neg_mae", "acc2_nn"):
        name = check_metric(metric, "regression")
        np.testing.assert_array_equal(points(name, outputs[rows], target, rows), points(name, outputs, target)[rows])


def test_what_does_not_fit_is_refused() -> None:
    assert (check_metric(None, "regression"), check_metric(None, "classification")) == ("r2", "accuracy")
    with pytest.raises(ValueError, match=r"neg_mae, acc2_nn for regression. Found `metric = 'accuracy'`"):
        check_metric("accuracy", "regression")
    with pytest.raises(ValueError, match="Parameter `task`"):
        check_metric(None, "ranking")
    with pytest.raises(ValueError, match=r"should fit targets \[3\]. Found \[3, 1\]"):
        points("neg_mae", np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(ValueError, match=r"should fit targets \[3\]. Found \[3\]"):
        points("accuracy", np.zeros(3), np.zeros(3, int))
    with pytest.raises(ValueError, match="should vary"):
        points("r2", np.zeros(3), np.ones(3))
