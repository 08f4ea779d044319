"""Sentiment regression as the field scores it: MOSI and MOSEI, CH-SIMS."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from equipoise.metrics._counts import confusion, f1_weighted
from equipoise.metrics._inputs import check_vectors, warn_undefined_corr
from equipoise.metrics._regression import pearson

if TYPE_CHECKING:
    from equipoise.metrics._inputs import Values

SIMS_CUTS_3 = (-0.1, 0.1)
SIMS_CUTS_5 = (-0.7, -0.1, 0.1, 0.7)


def _check_scale(scale: str, binarise: str | None) -> None:
    if scale not in ("mosi", "sims"):
        raise ValueError(f"Parameter `scale` should be 'mosi' or 'sims'. Found `scale = {scale!r}`.")
    if binarise not in (None, "mosi"):
        raise ValueError(f"Parameter `binarise` should be None or 'mosi'. Found `binarise = {binarise!r}`.")


def _rounded_accuracy(preds: Tensor, target: Tensor, limit: int) -> float:
    same = preds.clamp(-limit, limit).round() == target.clamp(-limit, limit).round()  # torch rounds half to even
    return same.double().mean().item()


def _interval_accuracy(preds: Tensor, target: Tensor, cuts: tuple[float, ...]) -> float:
    # Each side is cut in its own precision: a float32 label of 0.1 belongs with the cut at 0.1, not above it.
    # bucketize with right=False: open below, closed above.
    binned = [torch.bucketize(values, torch.tensor(cuts, dtype=values.dtype)) for values in (preds, target)]
    return (binned[0] == binned[1]).double().mean().item()


def _binary(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """Accuracy and weighted F1 of two boolean vectors `[N]`; NaN when N = 0."""
    if not len(target):
        return math.nan, math.nan
    return (preds == target).double().mean().item(), f1_weighted(confusion(preds, target, 2)).item()


def _sentiment_compute(preds: Tensor, target: Tensor, scale: str, binarise: str | None) -> dict[str, float]:
    preds, target = preds.cpu(), target.cpu()
    if scale == "sims":
        preds, target = preds.clamp(-1, 1), target.clamp(-1, 1)
    scores = {
        "mae": (preds.double() - target.double()).abs().mean().item(),
        "corr": pearson(preds[:, None], target[:, None]).item(),
    }
    if scale == "sims" and binarise is None:
        acc2, f1 = _binary(preds > 0, target > 0)
        return {
            **scores,
            "acc2": acc2,
            "acc3": _interval_accuracy(preds, target, SIMS_CUTS_3),
            "acc5": _interval_accuracy(preds, target, SIMS_CUTS_5),
            "f1": f1,
        }
    if scale == "mosi":
        scores |= {f"acc{2 * limit + 1}": _rounded_accuracy(preds, target, limit) for limit in (3, 2, 1)}
    else:
        scores["acc3"] = _interval_accuracy(preds, target, SIMS_CUTS_3)
        scores["acc5"] = _interval_accuracy(preds, target, SIMS_CUTS_5)
    labelled = target != 0
    acc2_nn, f1_nn = _binary(preds >= 0, target >= 0)
    acc2_pn, f1_pn = _binary(preds[labelled] > 0, target[labelled] > 0)
    return {**scores, "acc2_nn": acc2_nn, "acc2_pn": acc2_pn, "f1_nn": f1_nn, "f1_pn": f1_pn}


def sentiment_regression(
    preds: Values,
    target: Values,
    scale: Literal["mosi", "sims"] = "mosi",
    binarise: Literal["mosi"] | None = None,
) -> dict[str, float]:
    """Every number that sentiment papers print, as fractions.

    `scale="mosi"` (CMU-MOSI, CMU-MOSEI; labels in [−3, 3]) gives `mae, corr, acc7, acc5, acc3, acc2_nn, acc2_pn, f1_nn,
    f1_pn`:

    - `mae`, `corr`: on raw predictions.
    - `acc7`, `acc5`, `acc3`: both sides clipped to ±3, ±2, ±1, rounded half to even, compared.
    - `_nn`: negative (< 0) against non-negative (≥ 0), all samples. `_pn`: negative against positive (> 0), samples
      whose label is 0 left out; NaN when no other label is there. F1 is weighted by the labels' support.

    `scale="sims"` (CH-SIMS; labels in [−1, 1]) gives `mae, corr, acc2, acc3, acc5, f1`, all after clipping both sides
    to ±1: `acc2` and weighted `f1` on ≤ 0 against > 0, `acc3` cut at ±0.1, `acc5` at ±0.1 and ±0.7 (open below, closed
    above). With `binarise="mosi"` the pairs `_nn` and `_pn` stand in for `acc2` and `f1`, as AGS-SMoE's code scores
    SIMS.

    The definitions are those of the field's common framework (MMSA). A constant prediction has no correlation: `corr`
    is NaN, with a warning.

    Args:
        preds: predictions `[N]` or `[N, 1]`: a tensor, an array or a list.
        target: labels, likewise.
        scale: the label range, and with it the set of metrics.
        binarise: the two-class rule for `scale="sims"`; no effect on `"mosi"`.

    Raises:
        ValueError: shapes differ, no samples, a value is NaN or infinite, or an unknown option.

    >>> sentiment_regression([2.4, -0.6, 0.2], [3.0, -1.0, 0.0])["acc7"]
    0.6666666666666666
    """
    _check_scale(scale, binarise)
    scores = _sentiment_compute(*check_vectors(preds, target), scale, binarise)
    if math.isnan(scores["corr"]):
        warn_undefined_corr()
    return scores
