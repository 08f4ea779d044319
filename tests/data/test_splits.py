"""Splits keep units apart, hold their shares, balance labels, and repeat for a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.data import DataError, write_dataset
from equipoise.data.leakage import check_leakage
from equipoise.data.splits import assign, split_dataset, split_rows


def counts(splits: list[str]) -> dict[str, int]:
    return {name: splits.count(name) for name in ("train", "valid", "test")}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=3, max_size=80),
    st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0.0, 0.5), (0.8, 0.2, 0.0), (0.34, 0.33, 0.33), (1.0, 0.0, 0.0)]),
    st.integers(0, 5),
)
def test_no_unit_is_in_two_splits_and_no_split_is_empty(
    drawn: list[tuple[int, int]], fractions: tuple[float, float, float], seed: int
) -> None:
    units = [f"u{unit}" for unit, _ in drawn]
    labels = np.array([label for _, label in drawn])
    wanted = {name for name, share in zip(("train", "valid", "test"), fractions, strict=True) if share > 0}
    if len(set(units)) < len(wanted):
        with pytest.raises(DataError, match="need at least"):
            assign(labels, fractions, units=units, seed=seed)
        return
    splits = assign(labels, fractions, units=units, seed=seed)
    assert set(splits) == wanted
    assert all(len({s for s, u in zip(splits, units, strict=True) if u == unit}) == 1 for unit in units)
    assert splits == assign(labels, fractions, units=units, seed=seed)


def test_rows_are_split_exactly_and_each_class_evenly() -> None:
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    splits = assign(labels, (0.7, 0.1, 0.2))
    assert counts(splits) == {"train": 70, "valid": 10, "test": 20}
    for label, expected in ((0, (42, 6, 12)), (1, (21, 3, 6)), (2, (7, 1, 2))):
        chosen = [s for s, y in zip(splits, labels, strict=True) if y == label]
        assert tuple(counts(chosen).values()) == expected


def test_speakers_with_opposite_labels_are_spread() -> None:
    # Ten speakers with ten rows each; half of them only say 0, half only 1.
    units = [f"s{i // 10}" for i in range(100)]
    labels = np.array([i // 50 for i in range(100)])
    for seed in range(5):
        splits = np.array(assign(labels, (0.6, 0.2, 0.2), units=units, seed=seed))
        for name, size in (("train", 60), ("valid", 20), ("test", 20)):
            assert (splits == name).sum() == size
            assert labels[splits == name].mean() == 0.5


def test_numbers_are_balanced_too() -> None:
    labels = np.linspace(-3, 3, 700).astype(np.float32)
    splits = np.array(assign(labels, (0.7, 0.1, 0.2), seed=3))
    assert counts(splits.tolist()) == {"train": 490, "valid": 70, "test": 140}
    for name in ("train", "valid", "test"):
        assert abs(labels[splits == name].mean()) < 0.1
    several = assign(np.stack([labels, labels], axis=1), (0.7, 0.1, 0.2), seed=3)
    assert several == splits.tolist()


def test_seeds_differ() -> None:
    labels = np.arange(100) % 2
    assert len({tuple(assign(labels, seed=seed)) for seed in range(4)}) == 4


def test_unequal_speakers_come_near_the_shares() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat([f"s{i}" for i in range(89)], rng.integers(5, 60, 89))
    labels = rng.integers(0, 7, len(units))
    splits = np.array(assign(labels, (0.7, 0.1, 0.2), units=units.tolist()))
    for name, share in (("train", 0.7), ("valid", 0.1), ("test", 0.2)):
        assert (splits == name).mean() == pytest.approx(share, abs=0.01)
        of = np.bincount(labels[splits == name], minlength=7) / np.bincount(labels, minlength=7)
        np.testing.assert_allclose(of, share, atol=0.04)


SPEAKERS = [name for name in ("Anya", "Bill", "Kate", "Verity", "Yi") for _ in range(6)]
LABELS = np.tile([0, 1], 15)


def test_named_speakers_are_the_test_set_and_the_rest_is_shared() -> None:
    splits = split_rows(LABELS, (0.6, 0.2, 0.2), speakers=SPEAKERS, by="speaker", test_units=["Yi", "Verity", "Kate"])
    assert [s == "test" for s in splits] == [name in ("Yi", "Verity", "Kate") for name in SPEAKERS]
    assert counts(splits) == {"train": 6, "valid": 6, "test": 18}
    no_valid = split_rows(LABELS, (0.8, 0.0, 0.2), speakers=SPEAKERS, by="speaker", test_units=["Yi"])
    assert counts(no_valid) == {"train": 24, "valid": 0, "test": 6}


def test_a_test_split_can_be_kept() -> None:
    current = ["test" if i % 3 == 0 else "train" for i in range(30)]
    splits = split_rows(LABELS, (0.6, 0.4, 0.0), by="none", current=current)
    assert [s == "test" for s in splits] == [s == "test" for s in current]
    assert counts(splits) == {"train": 12, "valid": 8, "test": 10}
    with pytest.raises(DataError, match="'Anya' is inside and outside the test split"):
        split_rows(LABELS, speakers=SPEAKERS, by="speaker", current=current)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"by": "speaker"}, "records no speakers"),
        ({"by": "none", "seed": -1}, "`seed` should be non-negative. Found `seed = -1`"),
        ({"by": "none", "fractions": (float("nan"), 0.5, 0.5)}, "`fractions` should be three shares"),
        ({"by": "group"}, "records no groups"),
        ({"by": "video"}, "Parameter `by` should be speaker, group or none"),
        ({"by": "none", "fractions": (0.7, 0.2, 0.2)}, "Parameter `fractions`"),
        ({"by": "none", "fractions": (0.7, 0.3)}, "Parameter `fractions`"),
        ({"by": "none", "fractions": (1.2, -0.4, 0.2)}, "Parameter `fractions`"),
        ({"by": "none", "fractions": (0.0, 0.5, 0.5)}, "train above 0"),
        ({"by": "none", "test_units": ["Yi"]}, "needs `by = speaker` or `group`"),
        ({"by": "speaker", "speakers": SPEAKERS, "test_units": ["Zed"]}, "no speaker 'Zed'. It has: Anya, Bill, Kate"),
        ({"by": "speaker", "speakers": SPEAKERS, "test_units": sorted(set(SPEAKERS))}, "leaves no training rows"),
        ({"by": "speaker", "speakers": ["a"] * 15 + ["b"] * 15}, "3 splits need at least 3 speakers"),
        ({"by": "speaker", "speakers": ["a"] * 15 + [""] * 15}, "15 rows have no speaker"),
        ({"by": "none", "current": ["train"] * 30}, "no test split to keep"),
    ],
)
def test_what_is_impossible_is_one_clear_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(DataError, match=line) as caught:
        split_rows(LABELS, **options)
    assert "\n" not in str(caught.value)


def test_a_dataset_split_by_speaker_does_not_leak_speakers(tmp_path: Path) -> None:
    dataset = write_dataset(
        tmp_path / "d", name="d", source="test", task="classification", labels=LABELS,
        ids=[str(i) for i in range(30)], splits=["train", "test"] * 15,
        modalities={"audio": [np.full((2, 2), i + 1.0) for i in range(30)]}, speakers=SPEAKERS,
    )  # fmt: skip
    assert check_leakage(dataset).speakers == 5
    new = dataset.with_splits(tmp_path / "new", split_dataset(dataset, by="speaker"))
    assert check_leakage(new).speakers == 0
    assert not check_leakage(new).leaks
    np.testing.assert_array_equal(new.labels, dataset.labels)
