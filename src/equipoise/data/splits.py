"""Splits that keep speakers or videos apart, seeded and balanced in their labels as far as that allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from equipoise.data.dataset import Dataset
from equipoise.data.errors import DataError

Array = npt.NDArray[Any]
By = Literal["speaker", "group", "none"]
NAMES = ("train", "valid", "test")
BINS = 7


def assign(
    labels: Array,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    *,
    units: Sequence[str] | None = None,
    seed: int = 0,
) -> list[str]:
    """Give each row a split, so that no unit is in two.

    Units are dealt out from the largest to the smallest (in random order among equals), each to the split where it
    brings the counts of labels and of rows nearest to their share, in least squares. Numbers are balanced in up to
    seven bins of equal count. The same input and seed give the same splits.

    Args:
        labels: ``[N]`` classes or numbers, or ``[N, R]`` (balanced by the mean over R).
        fractions: shares of train, valid and test; they sum to 1, valid and test may be 0.
        units: ``[N]``, what must stay together: speakers or videos. None: each row is its own unit.
        seed: of the order among units of one size.

    Raises:
        DataError: fractions that are none, or fewer units than splits.

    """
    fractions = _checked(fractions)
    keys = np.arange(len(labels)).astype(str) if units is None else np.asarray(units, dtype=str)
    if len(keys) != len(labels):
        raise DataError(f"Parameter `units` should have one entry a row, {len(labels)}. Found {len(keys)}.")
    names, unit = np.unique(keys, return_inverse=True)
    wanted = [i for i, fraction in enumerate(fractions) if fraction > 0]
    if len(names) < len(wanted):
        what = "rows" if units is None else "speakers or videos"
        raise DataError(f"{len(wanted)} splits need at least {len(wanted)} {what}. Found {len(names)}.")
    counts = _histograms(_bins(labels), unit, len(names))
    # A last column for the number of rows, so that shares hold where labels are scarce.
    counts = np.concatenate([counts, counts.sum(axis=1, keepdims=True)], axis=1)
    target = np.array([fractions[i] for i in wanted])[:, None] * counts.sum(axis=0)
    weight = 1.0 / np.maximum(counts.sum(axis=0), 1.0)

    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    given = np.zeros_like(target)
    chosen = np.zeros(len(names), dtype=int)
    for place, u in enumerate(order):
        empty = np.flatnonzero(~given.any(axis=1))
        cost = ((2 * (given - target) + counts[u]) * counts[u] * weight).sum(axis=1)
        if len(order) - place <= len(empty):  # the last units go to splits that would otherwise stay empty
            cost[given.any(axis=1)] = np.inf
        best = int(np.argmin(cost))
        given[best] += counts[u]
        chosen[u] = best
    return [NAMES[wanted[i]] for i in chosen[unit]]


def split_rows(
    labels: Array,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    *,
    speakers: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    by: By = "group",
    seed: int = 0,
    test_units: Sequence[str] = (),
    current: Sequence[str] | None = None,
) -> list[str]:
    """Splits by speaker, by video or by row, with a test set that may be given.

    Args:
        labels: ``[N]`` or ``[N, R]``.
        fractions: shares of train, valid and test. With a test set given, train and valid share the other rows in the
            proportion of their fractions.
        speakers: ``[N]``, needed for ``by="speaker"``.
        groups: ``[N]``, needed for ``by="group"``.
        by: what no two splits may share.
        seed: see `assign`.
        test_units: the speakers or videos that are the test set.
        current: ``[N]`` splits whose test rows stay the test rows; no unit of them may be elsewhere.

    Raises:
        DataError: what ``by`` asks for is not recorded, an unknown unit, or units that can't be kept apart.

    """
    if seed < 0:
        raise DataError(f"Parameter `seed` should be non-negative. Found `seed = {seed}`.")
    if by not in ("speaker", "group", "none"):
        raise DataError(f"Parameter `by` should be speaker, group or none. Found `by = {by!r}`.")
    units = {"speaker": speakers, "group": groups, "none": None}[by]
    if by != "none" and units is None:
        raise DataError(f"The dataset records no {by}s, so it can't be split by {by}. Use another `by`.")
    if units is not None and not all(units):
        raise DataError(f"{sum(not u for u in units)} rows have no {by}, so they can't be split by {by}.")
    if not test_units and current is None:
        return assign(labels, fractions, units=units, seed=seed)

    if test_units:
        if units is None or current is not None:
            raise DataError(
                "A list of test speakers or videos needs `by = speaker` or `group`, and no kept test split."
            )
        unknown = sorted(set(test_units) - set(units))
        if unknown:
            known = sorted(set(units))
            shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise DataError(f"The dataset has no {by} {unknown[0]!r}. It has: {shown}.")
        held = np.isin(np.asarray(units, dtype=str), list(test_units))
    else:
        held = np.asarray(current) == "test"
        if not held.any():
            raise DataError("There is no test split to keep.")
        both = sorted(set(_at(units, held)) & set(_at(units, ~held))) if units is not None else []
        if both:
            raise DataError(
                f"{by} {both[0]!r} is inside and outside the test split, which can't be kept as it is. "
                "Split `--by none`, or leave out `--keep-test`."
            )
    rest = np.flatnonzero(~held)
    train, valid, _ = _checked(fractions)
    if not len(rest) or train <= 0:
        raise DataError("The test split leaves no training rows.")
    share = (train / (train + valid), valid / (train + valid), 0.0)
    splits = np.full(len(labels), "test", dtype=object)
    splits[rest] = assign(np.asarray(labels)[rest], share, units=_at(units, ~held) if units else None, seed=seed)
    return [str(s) for s in splits]


def split_dataset(
    dataset: Dataset,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    *,
    by: By = "group",
    seed: int = 0,
    test_units: Sequence[str] = (),
    keep_test: bool = False,
) -> list[str]:
    """`split_rows` on a dataset; hand the result to `Dataset.with_splits`."""
    return split_rows(
        dataset.labels,
        fractions,
        speakers=dataset.speakers,
        groups=dataset.groups,
        by=by,
        seed=seed,
        test_units=test_units,
        current=dataset.columns["split"] if keep_test else None,
    )


def _checked(fractions: Sequence[float]) -> tuple[float, float, float]:
    values = tuple(float(f) for f in fractions)
    # So put that NaN, which compares with nothing, is refused too.
    if not (len(values) == 3 and min(values) >= 0 and abs(sum(values) - 1) <= 1e-6 and values[0] > 0):
        raise DataError(
            "Parameter `fractions` should be three shares (train, valid, test) that sum to 1, train above 0. "
            f"Found `fractions = {values}`."
        )
    return values


def _at(units: Sequence[str] | None, mask: Array) -> list[str]:
    return [] if units is None else [unit for unit, wanted in zip(units, mask, strict=True) if wanted]


def _bins(labels: Array) -> Array:
    labels = np.asarray(labels)
    values = labels if labels.ndim == 1 else labels.mean(axis=1)
    distinct, index = np.unique(values, return_inverse=True)
    if values.dtype.kind != "f" or len(distinct) <= BINS:
        return np.asarray(index)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.searchsorted(edges, values, side="right")


def _histograms(bins: Array, unit: Array, units: int) -> Array:
    width = int(bins.max()) + 1 if len(bins) else 1
    flat = np.bincount(unit * width + bins, minlength=units * width)
    return flat.reshape(units, width).astype(np.float64)
