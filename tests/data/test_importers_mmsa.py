"""The field's common pickle, on files written in its layout."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.data import DataError
from equipoise.data.importers import detect, import_dataset, read


def part(n: int, start: int, *, aligned: bool = False, sims: bool = False) -> dict[str, Any]:
    """One split: sample i has i + 1 text tokens, 2 audio and 3 vision frames, all of value start + i + 1."""
    values = np.arange(start + 1, start + n + 1, dtype=np.float32)
    text = np.full((n, 4, 5), 9.0, dtype=np.float32)  # padding is a vector like any other
    mask = np.zeros((n, 4))
    audio = np.zeros((n, 6, 2), dtype=np.float64)
    vision = np.zeros((n, 7, 3), dtype=np.float64)
    for i, value in enumerate(values):
        tokens = min(i + 1, 4)
        text[i, :tokens] = value
        mask[i, :tokens] = 1
        audio[i, :2] = value
        vision[i, :3] = value
    split = {
        "raw_text": [f"utterance {int(v)}" for v in values],
        "id": [f"vid{start}$_${i}" for i in range(n)],
        "text": text,
        "text_bert": np.stack([np.ones((n, 4)), mask, np.zeros((n, 4))], axis=1),
        "audio": audio,
        "vision": vision,
        "annotations": ["Positive"] * n,
        "classification_labels": np.zeros(n),
        "regression_labels": np.linspace(-1, 1, n) if sims else np.linspace(-3, 3, n),
    }
    if not aligned:
        split |= {"audio_lengths": [5] * n, "vision_lengths": np.full(n, 3)}
    if sims:
        split |= {f"regression_labels_{m}": np.linspace(-1, 1, n) * k for m, k in (("T", 1), ("A", 0.5), ("V", -1))}
    return split


def content(**kwargs: bool) -> dict[str, Any]:
    return {"train": part(4, 0, **kwargs), "valid": part(2, 10, **kwargs), "test": part(3, 20, **kwargs)}


def saved(path: Path, data: Any) -> Path:
    path.write_bytes(pickle.dumps(data, 2))
    return path


def test_unaligned_50_comes_out_as_written(tmp_path: Path) -> None:
    path = saved(tmp_path / "unaligned_50.pkl", content())
    assert detect(path) == "mmsa"
    dataset = import_dataset(path, tmp_path / "out")
    assert dataset.modalities == ("text", "audio", "vision")
    assert [dataset.manifest.modalities[m].dim for m in dataset.modalities] == [5, 2, 3]
    assert dataset.manifest.splits == {"train": 4, "valid": 2, "test": 3}
    assert dataset.manifest.labels.range == (-3.0, 3.0)
    assert dataset.manifest.labels.scale == "mosi"
    np.testing.assert_array_equal(dataset.labels, np.array([-3, -1, 1, 3, -3, 3, -3, 0, 3], dtype=np.float32))
    assert dataset.texts is not None
    assert dataset.texts[4] == "utterance 11"
    assert dataset.ids[6] == "vid20$_$0"
    assert dataset.groups == ["vid0"] * 4 + ["vid10"] * 2 + ["vid20"] * 3
    # The third training sample: three tokens by the tokenizer's mask, five audio frames by the file's lengths.
    np.testing.assert_array_equal(dataset.sequence("text", 2), np.full((3, 5), 3.0))
    np.testing.assert_array_equal(dataset.sequence("audio", 2), [[3, 3], [3, 3], [0, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(dataset.sequence("vision", 2), np.full((3, 3), 3.0))


def test_aligned_50_is_trimmed_where_trailing_frames_are_zero(tmp_path: Path) -> None:
    data = content(aligned=True)
    data["train"]["audio"][0, :2] = [[0, 0], [7, 0]]  # a zero frame before content stays
    data["train"]["vision"][1] = 0  # no face was found: the sample lacks the modality
    dataset = import_dataset(saved(tmp_path / "aligned_50.pkl", data), tmp_path / "out")
    np.testing.assert_array_equal(dataset.sequence("audio", 0), [[0, 0], [7, 0]])
    assert dataset.sequence("vision", 1).shape == (0, 3)
    assert dataset.manifest.modalities["vision"].missing == 1
    np.testing.assert_array_equal(dataset.split("train").lengths("vision"), [3, 0, 3, 3])
    np.testing.assert_array_equal(dataset.split("train").lengths("text"), [1, 2, 3, 4])


def test_unaligned_39_brings_the_labels_of_each_modality(tmp_path: Path) -> None:
    dataset = import_dataset(saved(tmp_path / "unaligned_39.pkl", content(sims=True)), tmp_path / "out")
    assert dataset.manifest.labels.scale == "sims"
    assert dataset.manifest.labels.range == (-1.0, 1.0)
    assert set(dataset.manifest.unimodal) == {"text", "audio", "vision"}
    np.testing.assert_array_equal(dataset.unimodal_labels("audio"), dataset.labels * 0.5)
    np.testing.assert_array_equal(dataset.unimodal_labels("vision"), -dataset.labels)


def test_minus_infinity_in_audio_is_counted_and_becomes_zero(tmp_path: Path) -> None:
    data = content()
    data["train"]["audio"][0, 0, :] = -np.inf
    data["test"]["audio"][2, 1, 1] = np.nan
    dataset = import_dataset(saved(tmp_path / "unaligned_50.pkl", data), tmp_path / "out")
    assert dataset.manifest.modalities["audio"].repaired == 3
    assert dataset.manifest.modalities["vision"].repaired == 0
    np.testing.assert_array_equal(dataset.sequence("audio", 0)[:2], [[0, 0], [1, 1]])


def test_only_the_modalities_asked_for_are_kept(tmp_path: Path) -> None:
    path = saved(tmp_path / "unaligned_39.pkl", content(sims=True))
    dataset = import_dataset(path, tmp_path / "out", modalities=["audio"], name="mine")
    assert dataset.modalities == ("audio",)
    assert dataset.manifest.unimodal == ("audio",)
    assert dataset.manifest.name == "mine"
    with pytest.raises(DataError, match="no modality 'smell'"):
        import_dataset(path, tmp_path / "two", modalities=["smell"])


def broken(change: str) -> dict[str, Any]:
    data = content()
    train = data["train"]
    if change == "label rows":
        train["regression_labels"] = train["regression_labels"][:3]
    elif change == "audio rows":
        train["audio"] = train["audio"][:3]
        train["audio_lengths"] = train["audio_lengths"][:3]
    elif change == "lengths rows":
        train["audio_lengths"] = [5, 5]
    elif change == "length over":
        train["audio_lengths"] = [5, 8, 5, 5]
    elif change == "range":
        train["regression_labels"] = np.array([0, 3.5, 0, 0])
    elif change == "empty":
        data["valid"] = part(0, 10)
    elif change == "twice":
        data["test"]["id"][1] = train["id"][0]
    elif change == "no id":
        del train["id"]
    elif change == "no vision":
        del data["test"]["vision"]
    elif change == "no train":
        del data["train"]
    elif change == "shape":
        train["audio"] = train["audio"][:, :, 0]
    elif change == "words":
        train["audio"] = np.array(["a"] * 4)
    return data


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("label rows", r"x\.pkl: train: lengths disagree: .*audio 4.*regression_labels 3"),
        ("audio rows", r"x\.pkl: train: lengths disagree: id 4, text 4, audio 3"),
        ("lengths rows", r"train: audio: lengths disagree: samples 4, lengths 2"),
        ("length over", r"train: audio: lengths disagree: sample 1 is said to have 8 frames, the array has 6"),
        ("range", r"^x\.pkl: .*\[-3, 3\].*3\.5"),
        ("empty", r"valid: the split is empty"),
        ("twice", r"^x\.pkl: .*'vid0\$_\$0'"),
        ("no id", r"x\.pkl: train has no key `id`. It has: raw_text"),
        ("no vision", r"x\.pkl: test has no key `vision`"),
        ("no train", r"x\.pkl has no key `train`. It has: valid, test"),
        ("shape", r"train: audio should be \[N, T, d\]\. Found shape \(4, 6\)"),
        ("words", r"train: audio should hold numbers"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path: Path, change: str, line: str) -> None:
    path = saved(tmp_path / "x.pkl", broken(change))
    with pytest.raises(DataError, match=line) as caught:
        import_dataset(path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_scale_can_be_said(tmp_path: Path) -> None:
    data = content(sims=True)
    for split in data.values():
        for m in "TAV":
            del split[f"regression_labels_{m}"]
    path = saved(tmp_path / "x.pkl", data)
    assert read(path).scale == "mosi"
    assert read(path).assumptions  # and says that this is a guess
    assert read(path, scale="sims").scale == "sims"
    assert import_dataset(path, tmp_path / "out", scale="sims").manifest.labels.range == (-1.0, 1.0)
    assert not read(path, scale="sims").assumptions
    with pytest.raises(DataError, match="Parameter `scale`"):
        read(path, scale="stars")
