from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from equipoise.metrics import (
    better,
    classification,
    evaluate_metrics,
    metric_intervals,
    multi_regression,
    sentiment_regression,
)

GENERATOR = torch.Generator().manual_seed(0)
PREDS, TARGET = torch.randn(30, 3, generator=GENERATOR), torch.randn(30, 3, generator=GENERATOR)


@pytest.mark.parametrize("scale", ["mosi", "sims"])
def test_scaled_regression_is_sentiment_regression(scale: Any) -> None:
    found = evaluate_metrics("regression", PREDS[:, 0], TARGET[:, :1], scale=scale)
    assert found == sentiment_regression(PREDS[:, 0], TARGET[:, 0], scale=scale)


def test_other_tasks_keep_the_scalars_of_their_own_function() -> None:
    labels = torch.arange(30) % 3
    several = dict(multi_regression(PREDS, TARGET))
    classes = dict(classification(PREDS, labels))
    assert evaluate_metrics("regression", PREDS, TARGET) == {name: several[name] for name in ("mae", "corr")}
    assert evaluate_metrics("classification", PREDS, labels) == {
        name: value for name, value in classes.items() if isinstance(value, float)
    }
    one = multi_regression(PREDS[:, :1], TARGET[:, :1])
    assert evaluate_metrics("regression", PREDS[:, 0], TARGET[:, 0]) == {"mae": one["mae"], "corr": one["corr"]}


def test_every_metric_has_a_better_side() -> None:
    names = {"loss"}
    for scale in ("mosi", "sims", None):
        names |= evaluate_metrics("regression", PREDS[:, 0], TARGET[:, 0], scale=scale).keys()
    names |= evaluate_metrics("classification", PREDS, torch.arange(30) % 3).keys()
    assert {name for name in names if better(name) == "min"} == {"loss", "mae", "nll", "ece"}
    with pytest.raises(ValueError, match=r"`metric_name` should be one of loss, mae, .* Found 'acc9'"):
        better("acc9")


@pytest.mark.parametrize("outputs", [1, 2])
def test_constant_prediction_warns_once(outputs: int) -> None:
    with pytest.warns(UserWarning, match="`corr` is NaN") as record:
        found = evaluate_metrics("regression", torch.zeros(30, outputs), TARGET[:, :outputs])
    assert len(record) == 1
    assert math.isnan(found["corr"])


@pytest.mark.parametrize(
    ("task", "logits", "target", "scale", "message"),
    [
        ("ranking", PREDS, TARGET, None, "`task` should be 'regression' or 'classification'. Found `task = 'ranking'`"),
        ("regression", PREDS, TARGET, "mosi", "`scale` should be None for 3 outputs"),
        ("regression", PREDS[:, 0], TARGET[:, 0], "mosei", "`scale` should be 'mosi' or 'sims'"),
        ("regression", PREDS, TARGET[:, 0], None, r"`preds` should have shape \[N\] or \[N, 1\]"),
        ("regression", PREDS[:, 0], TARGET, None, r"should have one shape \[N, R\]"),
    ],
)
def test_bad_input_is_one_clear_error(task: str, logits: Any, target: Any, scale: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_metrics(task, logits, target, scale=scale)


def test_intervals_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(0, 1, 80)
    preds = target + rng.normal(0, 1, 80)
    found = metric_intervals("regression", preds, target, resamples=3000)
    oracle = bootstrap((np.abs(preds - target),), np.mean, method="percentile", n_resamples=3000, rng=rng)
    assert found["mae"] == pytest.approx(tuple(oracle.confidence_interval), abs=0.01)
    r = bootstrap(
        (preds, target),
        lambda p, t: np.corrcoef(p, t)[0, 1],
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=3000,
        rng=rng,
    )
    assert found["corr"] == pytest.approx(tuple(r.confidence_interval), abs=0.02)


def test_intervals_hold_the_point_and_repeat() -> None:
    target = np.random.default_rng(1).normal(0, 1, 50).round(1)
    preds = np.random.default_rng(2).normal(0, 1, 50) + target
    state = torch.random.get_rng_state()
    found = metric_intervals("regression", preds, target, scale="mosi", resamples=200, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert found == metric_intervals("regression", preds, target, scale="mosi", resamples=200, seed=3)
    assert found != metric_intervals("regression", preds, target, scale="mosi", resamples=200, seed=4)
    point = evaluate_metrics("regression", preds, target, scale="mosi")
    assert found.keys() == point.keys()
    assert all(low <= point[name] <= high for name, (low, high) in found.items())


def test_resamples_without_a_correlation_are_left_out() -> None:
    # one resample in nine draws a single row three times: no correlation there, a straight line elsewhere
    found = metric_intervals("regression", [1.0, 2.0, 3.0], [2.0, 4.0, 6.0], resamples=300)
    assert found["corr"] == pytest.approx((1.0, 1.0))
