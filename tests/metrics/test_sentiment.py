from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score

from equipoise.metrics import sentiment_regression

MOSI_KEYS = ["mae", "corr", "acc7", "acc5", "acc3", "acc2_nn", "acc2_pn", "f1_nn", "f1_pn"]
SIMS_KEYS = ["mae", "corr", "acc2", "acc3", "acc5", "f1"]


def mosi_oracle(preds: Any, target: Any) -> dict[str, float]:
    kept = target != 0
    scores = {"mae": np.abs(preds - target).mean(), "corr": pearsonr(preds, target)[0]}
    for classes in (7, 5, 3):
        limit = classes // 2
        scores[f"acc{classes}"] = np.mean(
            np.round(np.clip(preds, -limit, limit)) == np.round(np.clip(target, -limit, limit))
        )
    scores["acc2_nn"] = accuracy_score(target >= 0, preds >= 0)
    scores["acc2_pn"] = accuracy_score(target[kept] > 0, preds[kept] > 0)
    scores["f1_nn"] = f1_score(target >= 0, preds >= 0, average="weighted")
    scores["f1_pn"] = f1_score(target[kept] > 0, preds[kept] > 0, average="weighted")
    return scores


def sims_oracle(preds: Any, target: Any) -> dict[str, float]:
    preds, target = np.clip(preds, -1, 1), np.clip(target, -1, 1)

    def classes(values: Any, cuts: list[float]) -> Any:
        return np.digitize(values, np.array(cuts, dtype=values.dtype), right=True)

    return {
        "mae": np.abs(preds - target).mean(),
        "corr": pearsonr(preds, target)[0],
        "acc2": accuracy_score(target > 0, preds > 0),
        "acc3": accuracy_score(classes(target, [-0.1, 0.1]), classes(preds, [-0.1, 0.1])),
        "acc5": accuracy_score(classes(target, [-0.7, -0.1, 0.1, 0.7]), classes(preds, [-0.7, -0.1, 0.1, 0.7])),
        "f1": f1_score(target > 0, preds > 0, average="weighted"),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(5))
def test_mosi_agrees_with_scikit_learn_and_scipy(seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    target = (rng.integers(-15, 16, 301) / 5).astype(dtype)  # the grid of the labels, zeros included
    preds = (target + rng.normal(0, 1.5, 301)).astype(dtype)
    preds[:60] = rng.integers(-8, 9, 60) / 2  # halves: rounding to even matters
    found = sentiment_regression(preds, target)
    assert list(found) == MOSI_KEYS
    assert found == pytest.approx(mosi_oracle(preds, target), abs=1e-6 if dtype is np.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(5))
def test_sims_agrees_with_scikit_learn_and_scipy(seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    target = (rng.integers(-10, 11, 301) / 10).astype(dtype)  # many labels lie on the cuts
    preds = (target + rng.normal(0, 0.6, 301)).astype(dtype)
    preds[:60] = rng.integers(-13, 14, 60) / 10
    found = sentiment_regression(preds, target, scale="sims")
    assert list(found) == SIMS_KEYS
    assert found == pytest.approx(sims_oracle(preds, target), abs=1e-6 if dtype is np.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mosi_by_hand(dtype: torch.dtype) -> None:
    # half to even: 0.5 → 0, 2.5 → 2; clip: −4 → −3; labels of 0 in the first and fifth row
    preds = torch.tensor([0.5, 1.4, 2.5, -4.0, -0.4, -1.2, 0.0, 0.0], dtype=dtype)
    target = torch.tensor([0.0, 2.0, 3.0, -3.0, 0.0, 0.4, -1.0, 1.0], dtype=dtype)
    found = sentiment_regression(preds, target)
    del found["corr"]
    assert found == pytest.approx(
        {
            "mae": 6.6 / 8,
            "acc7": 3 / 8,
            "acc5": 4 / 8,
            "acc3": 5 / 8,
            "acc2_nn": 5 / 8,
            "acc2_pn": 4 / 6,
            "f1_nn": (2 * 0.4 + 6 * 8 / 11) / 8,
            "f1_pn": 2 / 3,
        },
        abs=1e-6,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sims_by_hand(dtype: torch.dtype) -> None:
    # −0.1, 0.1, −0.7 and 0.7 belong to the interval below them; 1.4 and −1.6 are clipped before the MAE
    preds = torch.tensor([1.4, 0.0, -0.1, 0.1, -0.7, 0.7, 0.05, -1.6], dtype=dtype)
    target = torch.tensor([1.0, 0.0, -0.2, 0.2, -0.8, 0.8, 0.0, -0.6], dtype=dtype)
    found = sentiment_regression(preds, target, scale="sims")
    del found["corr"]
    expected = {"mae": 0.85 / 8, "acc2": 7 / 8, "acc3": 7 / 8, "acc5": 5 / 8, "f1": (3 * 6 / 7 + 5 * 8 / 9) / 8}
    assert found == pytest.approx(expected, abs=1e-6)


def test_sims_cuts_a_float32_prediction_and_a_float64_label_alike() -> None:
    # 0.1 in float32 is 0.100000001: in float64 it would fall above the cut
    found = sentiment_regression(np.array([0.1, -0.5], dtype=np.float32), [0.1, -0.5], scale="sims")
    assert found["acc3"] == found["acc5"] == 1.0


def test_f1_is_weighted_by_labels_not_by_predictions() -> None:
    preds, target = [-1.0, -1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, 1.0]
    found = sentiment_regression(preds, target)
    assert found["f1_nn"] == found["f1_pn"] == pytest.approx(0.75 * 4 / 5 + 0.25 * 2 / 3)
    # swapped it would be
    assert sentiment_regression(target, preds)["f1_nn"] == pytest.approx(0.5 * 4 / 5 + 0.5 * 2 / 3)
    sims = sentiment_regression([0.5 * p for p in preds], [0.5 * t for t in target], scale="sims")
    assert sims["f1"] == pytest.approx(23 / 30)


def test_sims_scored_the_mosi_way() -> None:
    preds, target = [-1.6, 0.0, 0.2, 0.3], [-0.6, 0.0, 0.0, -0.4]
    plain = sentiment_regression(preds, target, scale="sims")
    found = sentiment_regression(preds, target, scale="sims", binarise="mosi")
    assert list(found) == ["mae", "corr", "acc3", "acc5", "acc2_nn", "acc2_pn", "f1_nn", "f1_pn"]
    assert {name: found[name] for name in ("mae", "corr", "acc3", "acc5")} == {
        name: plain[name] for name in ("mae", "corr", "acc3", "acc5")
    }
    assert plain["mae"] == pytest.approx((0.4 + 0.0 + 0.2 + 0.7) / 4)
    assert (plain["acc2"], found["acc2_nn"], found["acc2_pn"]) == (0.5, 0.75, 0.5)


@pytest.mark.parametrize("scale", ["mosi", "sims"])
def test_constant_prediction_has_no_correlation_and_says_so(scale: Any) -> None:
    target = [0.1, -0.2, 0.3] * 20
    with pytest.warns(UserWarning, match="`corr` is NaN"):
        found = sentiment_regression([0.1] * 60, target, scale=scale)  # the float mean of 60 times 0.1 is not 0.1
    assert math.isnan(found.pop("corr"))
    assert not any(math.isnan(value) for value in found.values())


def test_clipping_can_make_a_prediction_constant() -> None:
    with pytest.warns(UserWarning, match="`corr` is NaN"):
        assert math.isnan(sentiment_regression([1.5, 2.0], [0.5, -0.5], scale="sims")["corr"])


def test_one_sample_has_no_correlation() -> None:
    with pytest.warns(UserWarning, match="`corr` is NaN"):
        assert math.isnan(sentiment_regression([0.5], [1.0])["corr"])


def test_no_nonzero_label_leaves_pn_undefined() -> None:
    with pytest.warns(UserWarning, match="`corr` is NaN"):
        found = sentiment_regression([0.5, -0.5], [0.0, 0.0])
    assert math.isnan(found["acc2_pn"])
    assert math.isnan(found["f1_pn"])
    assert found["acc2_nn"] == 0.5


@pytest.mark.parametrize("factor", [1e-200, 1.0, 1e200])
def test_correlation_does_not_depend_on_the_unit(factor: float) -> None:
    preds, target = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0])
    assert sentiment_regression(preds * factor, target)["corr"] == pytest.approx(pearsonr(preds, target)[0])


def test_small_spread_around_a_large_mean_keeps_its_correlation() -> None:
    target = np.linspace(-3, 3, 50)
    assert sentiment_regression(1000 + 1e-9 * target, target)["corr"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x,
        np.asarray,
        lambda x: np.asarray(x, dtype=np.float32)[::-1][::-1],
        torch.tensor,
        lambda x: torch.tensor(x, requires_grad=True)[:, None],
        lambda x: torch.tensor(x, dtype=torch.bfloat16),
    ],
    ids=["list", "array", "strided", "tensor", "column", "bfloat16"],
)
def test_any_container_gives_the_same_numbers(convert: Any) -> None:
    preds, target = [1.5, -0.5, 2.0, 0.25], [1.0, -1.0, 3.0, 0.0]
    expected = mosi_oracle(*np.array([preds, target]))
    assert sentiment_regression(convert(preds), convert(target)) == pytest.approx(expected)


def test_read_only_array_is_taken_without_a_warning() -> None:
    array = np.array([1.0, -1.0])
    array.flags.writeable = False
    assert sentiment_regression(array, array)["mae"] == 0.0


@pytest.mark.parametrize(
    ("preds", "target", "message"),
    [
        ([1.0, 2.0], [1.0], r"Found 2 predictions and 1 labels"),
        ([[1.0, 2.0]], [1.0], r"`preds` should have shape \[N\] or \[N, 1\]. Found \[1, 2\]"),
        ([], [], r"`preds` should hold at least one sample"),
        ([float("nan"), float("inf"), 1.0], [1.0, 2.0, 3.0], r"`preds` should be finite. Found 2 of 3"),
        ([1.0, 2.0], [1.0, float("nan")], r"`target` should be finite. Found 1 of 2"),
        ([[1.0], [1.0, 2.0]], [1.0, 2.0], r"`preds` should hold numbers in rows of equal length"),
        ("ab", [1.0, 2.0], r"`preds` should hold numbers"),
        (torch.tensor([1j]), [1.0], r"`preds` should hold real numbers"),
    ],
)
def test_bad_input_is_one_clear_error(preds: Any, target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sentiment_regression(preds, target)


def test_unknown_options_are_errors() -> None:
    with pytest.raises(ValueError, match=r"`scale` should be 'mosi' or 'sims'. Found `scale = 'mosei'`"):
        sentiment_regression([1.0], [1.0], scale="mosei")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`binarise` should be None or 'mosi'. Found `binarise = 'sims'`"):
        sentiment_regression([1.0], [1.0], binarise="sims")  # type: ignore[arg-type]


def test_real_mosi_labels_score_as_the_oracle_says(shared_data: Path) -> None:
    with np.load(shared_data / "mosi_utt.npz", allow_pickle=False) as data:
        target = data["label"][data["split_std"] == "test"]
    preds = (target + np.random.default_rng(0).normal(0, 1, len(target))).astype(np.float32)
    assert sentiment_regression(preds, target) == pytest.approx(mosi_oracle(preds, target), abs=1e-6)
