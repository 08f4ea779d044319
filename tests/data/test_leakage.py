"""The leakage check finds what splits share, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.data import write_dataset
from equipoise.data.importers import import_dataset
from equipoise.data.leakage import check_leakage, find_leakage

SPLITS = ["train", "train", "valid", "valid", "test", "test"]
LABELS = np.array([0, 1, 0, 1, 0, 1])


def rows(*values: float) -> list[Any]:
    return [np.full((2, 3), value, dtype=np.float32) for value in values]


def test_clean_splits_have_no_finding() -> None:
    found = find_leakage(
        SPLITS,
        LABELS,
        speakers=list("aabbcc"),
        groups=list("uvwxyz"),
        texts=["same", "same", "x", "y", "z", "w"],  # twice in one split is no leak
        modalities={"audio": rows(1, 1, 2, 3, 4, 5)},
    )
    assert not found.leaks
    assert found.messages == ()
    assert (found.speakers, found.groups, found.texts, found.features) == (0, 0, 0, {"audio": 0})
    assert found.samples == 0


@pytest.mark.parametrize(
    ("given", "count", "message", "samples"),
    [
        ({"speakers": list("aabbac")}, ("speakers", 1), "1 speaker in two splits (train, test), such as 'a'", 1),
        (
            {"groups": list("abbaac")},
            ("groups", 2),
            "2 source videos in two splits (train, valid, test), such as 'a'",
            3,
        ),
        (
            {"texts": ["Hi  there", "b", "c", "d", "hi there", "e"]},
            ("texts", 1),
            "1 transcript in two splits (train, test), such as 'hi there'",
            1,
        ),
    ],
)
def test_each_shared_thing_is_counted_and_named(
    given: dict[str, Any], count: tuple[str, int], message: str, samples: int
) -> None:
    found = find_leakage(SPLITS, LABELS, **given)
    assert found.leaks
    assert getattr(found, count[0]) == count[1]
    assert found.messages == (message,)
    assert found.samples == samples


def test_features_leak_only_when_bit_identical() -> None:
    values = rows(1, 2, 3, 4, 1, 6)
    found = find_leakage(SPLITS, LABELS, modalities={"audio": values, "vision": rows(1, 2, 3, 4, 5, 6)})
    assert found.features == {"audio": 1, "vision": 0}
    assert found.messages == ("1 audio sequence in two splits (train, test), such as rows 0 and 4",)
    values[4] = np.nextafter(values[4], np.float32(2))
    assert not find_leakage(SPLITS, LABELS, modalities={"audio": values}).leaks
    values[4] = np.full((3, 2), 1, dtype=np.float32)  # the same bytes in another shape
    assert not find_leakage(SPLITS, LABELS, modalities={"audio": values}).leaks


def test_missing_and_zero_features_and_unknown_names_are_not_shared() -> None:
    empty = [np.zeros((0, 3), dtype=np.float32)] * 6
    found = find_leakage(
        SPLITS, LABELS, speakers=[""] * 6, texts=["", " "] * 3, modalities={"a": empty, "b": rows(*[0] * 6)}
    )
    assert not found.leaks


def test_what_is_not_recorded_is_none_and_not_zero() -> None:
    found = find_leakage(SPLITS, LABELS)
    assert (found.speakers, found.groups, found.texts) == (None, None, None)


def test_one_label_in_a_split_is_a_finding_but_no_leak() -> None:
    found = find_leakage(SPLITS, np.array([0, 1, 1, 1, 0, 1]))
    assert found.single_label == ("valid",)
    assert found.messages == ("every sample of valid has the same label",)
    assert not found.leaks
    assert find_leakage(SPLITS, np.array([[0, 1], [1, 1], [2, 2], [2, 3], [4, 4], [4, 4]])).single_label == ("test",)


def test_a_dataset_on_disk_is_checked_whole(tmp_path: Path) -> None:
    audio = rows(1, 2, 3, 4, 5, 6)
    audio[5] = audio[0]
    dataset = write_dataset(
        tmp_path / "d", name="d", source="test", task="classification", labels=LABELS, ids=list("abcdef"),
        splits=SPLITS, modalities={"audio": audio}, texts=list("uvwxyz"), speakers=list("aaaabb"),
    )  # fmt: skip
    found = check_leakage(dataset)
    assert (found.speakers, found.groups, found.texts, found.features) == (1, None, 0, {"audio": 1})
    assert found.samples == 3  # two validation rows of the speaker, one test row of the sequence
    assert found.to_json()["leaks"] is True


def test_the_standard_split_of_mosi_shares_no_video_text_or_audio(tmp_path: Path, shared_data: Path) -> None:
    dataset = import_dataset(
        shared_data / "mosi_utt.npz",
        tmp_path / "mosi",
        map={"audio": "audio73", "split": "split_std", "group": "video_id"},
        scale="mosi",
    )
    found = check_leakage(dataset)
    # Speakers are not in the file: whether one of them has videos in two splits stays unknown.
    assert (found.speakers, found.groups, found.texts, found.features) == (None, 0, 0, {"audio": 0})
    assert found.messages == ()
    # The same file split by rows is what the check is for.
    shuffled = np.random.default_rng(0).permutation(dataset.columns["split"]).tolist()
    leaking = check_leakage(dataset.with_splits(tmp_path / "rows", shuffled))
    assert leaking.groups == 93
    assert leaking.leaks


def test_avletters_by_repetition_shares_every_speaker(shared_data: Path) -> None:
    raw = np.load(shared_data / "avletters.npz")
    splits = ["test" if rep == 3 else "train" for rep in raw["rep"]]
    found = find_leakage(splits, raw["label"], speakers=raw["speaker"].tolist(), modalities={"audio": raw["audio"]})
    assert found.speakers == 10
    assert found.features == {"audio": 0}
