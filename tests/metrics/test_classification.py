from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from equipoise.metrics import classification


@pytest.mark.parametrize("classes", [2, 5, 26])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_learn_and_torchmetrics(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.concatenate([np.arange(classes), rng.choice(classes, 200, p=rng.dirichlet(np.ones(classes)))])
    logits = rng.normal(0, 1, (len(target), classes)) + 1.5 * np.eye(classes)[target]
    found = classification(logits, target)
    predicted = logits.argmax(1)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["accuracy"] == pytest.approx(accuracy_score(target, predicted))
    assert found["f1_weighted"] == pytest.approx(f1_score(target, predicted, average="weighted"))
    assert found["f1_macro"] == pytest.approx(f1_score(target, predicted, average="macro"))
    assert found["f1_per_class"] == pytest.approx(f1_score(target, predicted, average=None))
    assert found["confusion"] == confusion_matrix(target, predicted).tolist()
    assert found["nll"] == pytest.approx(log_loss(target, probs, labels=range(classes)))
    ece = multiclass_calibration_error(torch.tensor(probs), torch.tensor(target), classes, n_bins=15, norm="l1")
    assert found["ece"] == pytest.approx(ece.item(), abs=1e-6)


def test_by_hand() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]], dtype=torch.float64)
    found = classification(probs.log(), [0, 1, 0, 1])
    assert found["accuracy"] == 0.75
    assert found["confusion"] == [[2, 0], [1, 1]]
    assert found["f1_per_class"] == pytest.approx([4 / 5, 2 / 3])
    assert found["nll"] == pytest.approx(-(math.log(0.9) + math.log(0.1) + math.log(0.6) + math.log(0.7)) / 4)
    # bins: two samples at .9 of which one is right, one right at .6, one right at .7
    assert found["ece"] == pytest.approx(0.5 * 0.4 + 0.25 * 0.4 + 0.25 * 0.3)


def test_ece_nets_within_a_bin_but_not_across() -> None:
    one_bin = torch.tensor([[0.9, 0.1]] * 10, dtype=torch.float64).log()
    assert classification(one_bin, [0] * 9 + [1])["ece"] == pytest.approx(0.0, abs=1e-12)
    two_bins = torch.tensor([[0.9, 0.1]] * 5 + [[0.6, 0.4]] * 5, dtype=torch.float64).log()
    # 3 of 5 right at .9 (overconfident by .3), 5 of 5 at .6 (underconfident by .4)
    assert classification(two_bins, [0, 0, 0, 1, 1, 0, 0, 0, 0, 0])["ece"] == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)


def test_labels_and_predictions_are_the_right_way_round() -> None:
    found = classification([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [0, 0, 0, 1])
    assert found["confusion"] == [[2, 1], [0, 1]]
    assert found["f1_weighted"] == pytest.approx(0.75 * 4 / 5 + 0.25 * 2 / 3)


def test_class_that_never_occurs_is_nan_and_out_of_the_macro_mean() -> None:
    logits, target = np.eye(4)[[0, 1, 1]], [0, 0, 1]
    found = classification(logits, target)
    assert found["f1_per_class"] == pytest.approx([2 / 3, 2 / 3, math.nan, math.nan], nan_ok=True)
    assert found["f1_macro"] == pytest.approx(f1_score(target, [0, 1, 1], average="macro")) == pytest.approx(2 / 3)


def test_extreme_logits_stay_finite() -> None:
    found = classification([[1000.0, 0.0], [0.0, 1000.0]], [0, 0])
    assert found["nll"] == pytest.approx(500.0)
    assert found["ece"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        ([1.0, 2.0], [0, 1], r"`logits` should have shape \[N, C\] with C of 2 or more. Found \[2\]"),
        ([[1.0], [2.0]], [0, 0], r"`logits` should have shape \[N, C\]"),
        ([[1.0, 2.0]], [0, 1], r"`target` should have shape \[N\] with N = 1 as `logits`. Found \[2\]"),
        ([[1.0, 2.0]], [2], r"`target` should hold class numbers from 0 to 1. Found values from 2 to 2"),
        ([[1.0, 2.0]], [-1], r"`target` should hold class numbers"),
        ([[1.0, 2.0]], [0.5], r"`target` should hold class numbers"),
        ([[1.0, math.nan]], [0], r"`logits` should be finite. Found 1 of 2"),
        (np.zeros((0, 2)), [], r"`logits` should hold at least one sample"),
    ],
)
def test_bad_input_is_one_clear_error(logits: Any, target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification(logits, target)
