"""Layouts that are folders: UR-FUNNY, MUStARD, CHERMA, CMU-SDK."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from equipoise.data import DataError
from equipoise.data.importers import detect, import_dataset


def dump(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(data))


def ur_funny(folder: Path, vectors: bool = True) -> Path:
    """Three ids; id k has a context of sentences [1 word, 2 words] and a punchline of k words."""
    language: dict[int, Any] = {}
    audio: dict[int, Any] = {}
    vision: dict[int, Any] = {}
    for k in (1, 2, 3):
        language[k] = {
            "punchline_sentence": " ".join(["ha"] * k),
            "context_sentences": ["one", "two three"],
            "punchline_embedding_indexes": [0] * k,
            "context_embedding_indexes": [[1], [2, 2]],
        }
        for table, width, sign in ((audio, 81, 1.0), (vision, 371, -1.0)):
            table[k] = {
                "punchline_features": [[sign * k] * width] * k,
                "context_features": [[[10.0] * width], [[20.0] * width] * 2],
            }
    dump(folder / "data_folds.pkl", {"train": [3], "dev": [1], "test": [2]})
    dump(folder / "language_sdk.pkl", language)
    dump(folder / "humor_label_sdk.pkl", {1: 0, 2: 1, 3: 1})
    dump(folder / "covarep_features_sdk.pkl", audio)
    dump(folder / "openface_features_sdk.pkl", vision)
    if vectors:
        dump(folder / "word_embedding_list.pkl", [[0.5] * 300, [1.5] * 300, [2.5] * 300])
    return folder


def test_ur_funny_with_and_without_context(tmp_path: Path) -> None:
    folder = ur_funny(tmp_path / "urfunny")
    assert detect(folder) == "ur-funny"
    whole = import_dataset(folder, tmp_path / "whole")
    assert {m: i.dim for m, i in whole.manifest.modalities.items()} == {"text": 300, "audio": 81, "vision": 371}
    assert whole.ids == ["3", "1", "2"]
    assert whole.columns["split"] == ["train", "valid", "test"]
    np.testing.assert_array_equal(whole.labels, [1, 0, 1])
    assert whole.texts == ["one two three ha ha ha", "one two three ha", "one two three ha ha"]
    np.testing.assert_array_equal(whole.sequence("audio", 1)[:, 0], [10, 20, 20, 1])
    np.testing.assert_array_equal(whole.sequence("text", 1)[:, 7], [1.5, 2.5, 2.5, 0.5])
    bare = import_dataset(folder, tmp_path / "bare", context="drop")
    assert bare.texts == ["ha ha ha", "ha", "ha ha"]
    np.testing.assert_array_equal(bare.sequence("vision", 2), np.full((2, 371), -2.0))
    np.testing.assert_array_equal(bare.sequence("text", 2), np.full((2, 300), 0.5))


def test_broken_ur_funny_is_one_clear_line(tmp_path: Path) -> None:
    folder = ur_funny(tmp_path / "u")
    (folder / "humor_label_sdk.pkl").rename(folder / "away")
    with pytest.raises(DataError, match=r"has no humor_label_sdk\.pkl"):
        import_dataset(folder, tmp_path / "out")
    dump(folder / "humor_label_sdk.pkl", {1: 0, 2: 1})
    with pytest.raises(DataError, match=r"humor_label_sdk\.pkl has no key `3`"):
        import_dataset(folder, tmp_path / "out")
    dump(folder / "humor_label_sdk.pkl", {1: 0, 2: 1, 3: 5})
    with pytest.raises(DataError, match=r"3: the label should be 0 or 1"):
        import_dataset(folder, tmp_path / "out")
    dump(folder / "humor_label_sdk.pkl", {1: 0, 2: 1, 3: 0})
    audio = pickle.loads((folder / "covarep_features_sdk.pkl").read_bytes())
    audio[2]["punchline_features"] = audio[2]["punchline_features"][:1]
    dump(folder / "covarep_features_sdk.pkl", audio)
    with pytest.raises(DataError, match=r"u: 2: lengths disagree: text 5, audio 4, vision 5"):
        import_dataset(folder, tmp_path / "out")
    dump(folder / "data_folds.pkl", {"train": [1, 3], "dev": [], "test": [2]})
    with pytest.raises(DataError, match=r"dev: the split is empty"):
        import_dataset(folder, tmp_path / "out")
    dump(folder / "data_folds.pkl", {"train": [1, 3], "dev": [9], "test": [2]})
    with pytest.raises(DataError, match=r"language_sdk\.pkl has no key `9`"):
        import_dataset(folder, tmp_path / "out")


def mustard(folder: Path, n: int = 40) -> Path:
    entries = {
        f"1_{i}": {
            "utterance": f"line {i}.",
            "speaker": ("CHANDLER", "SHELDON")[i % 2],
            "context": [f"before {i}", "really?"],
            "context_speakers": ["A", "B"],
            "show": "FRIENDS" if i < 10 else "BBT",
            "sarcasm": i % 4 == 0,
        }
        for i in range(n)
    }
    folder.mkdir()
    (folder / "sarcasm_data.json").write_text(json.dumps(entries))
    dump(folder / "split_indices.p", [(np.arange(8, n), np.arange(8)), (np.arange(n - 8), np.arange(n - 8, n))])
    dump(folder / "audio_features.p", {i: np.full((283, 3), float(i[2:])) for i in entries})
    for place, value in (("utterances_final", 1.0), ("context_final", 2.0)):
        (folder / "features" / place).mkdir(parents=True)
        with h5py.File(folder / "features" / place / "resnet_pool5.hdf5", "w") as h5:
            for i in entries:
                h5[i] = np.full((2, 2048), value * (1 + int(i[2:])), dtype=np.float32)
    return folder


def test_mustard_folds_speakers_and_context(tmp_path: Path) -> None:
    folder = mustard(tmp_path / "mustard")
    assert detect(folder) == "mustard"
    dataset = import_dataset(folder, tmp_path / "out")
    assert dataset.rows("test").tolist() == list(range(8))
    assert dataset.manifest.splits["valid"] == 3  # a tenth of the other 32, rounded
    np.testing.assert_array_equal(dataset.labels, [int(i % 4 == 0) for i in range(40)])
    assert dataset.speakers is not None
    assert dataset.speakers[:2] == ["CHANDLER", "SHELDON"]
    assert dataset.texts is not None
    assert dataset.texts[5] == "before 5 really? line 5."
    np.testing.assert_array_equal(dataset.sequence("audio", 5), np.full((3, 283), 5.0))
    np.testing.assert_array_equal(dataset.sequence("vision", 5)[:, 0], [12, 12, 6, 6])
    other = import_dataset(folder, tmp_path / "o2", fold="1", context="drop")
    assert other.rows("test").tolist() == list(range(32, 40))
    np.testing.assert_array_equal(other.sequence("vision", 5)[:, 0], [6, 6])
    assert import_dataset(folder, tmp_path / "o3", fold="speaker").rows("test").tolist() == list(range(10))


def test_mustard_of_transcripts_alone(tmp_path: Path) -> None:
    folder = mustard(tmp_path / "mustard")
    (folder / "audio_features.p").unlink()
    (folder / "features" / "utterances_final" / "resnet_pool5.hdf5").unlink()
    dataset = import_dataset(folder, tmp_path / "out", context="drop")
    assert dataset.modalities == ()
    assert dataset.texts is not None
    assert dataset.texts[7] == "line 7."


def test_broken_mustard_is_one_clear_line(tmp_path: Path) -> None:
    folder = mustard(tmp_path / "m")
    with pytest.raises(DataError, match="Fold 3 is not there"):
        import_dataset(folder, tmp_path / "out", fold="3")
    with pytest.raises(DataError, match="Parameter `fold`"):
        import_dataset(folder, tmp_path / "out", fold="nine")
    dump(folder / "audio_features.p", {"1_0": np.zeros((283, 3))})
    with pytest.raises(DataError, match=r"audio_features\.p has no key `1_1`"):
        import_dataset(folder, tmp_path / "out")
    (folder / "split_indices.p").unlink()
    with pytest.raises(DataError, match=r"no split_indices\.p.*fold = speaker"):
        import_dataset(folder, tmp_path / "out")
    (folder / "sarcasm_data.json").write_text('{"1_0": {"utterance": "x"}}')
    with pytest.raises(DataError, match=r"1_0 has no key `context`"):
        import_dataset(folder, tmp_path / "out")
    (folder / "sarcasm_data.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        import_dataset(folder, tmp_path / "out")


def cherma(folder: Path) -> Path:
    labels = {"train": "愤怒", "dev": "平静", "test": "惊奇"}
    for stage, label in labels.items():
        entry = {"audio_file": f"{stage}_1.wav", "video_file": f"{stage}_1.mp4", "txt_label": "高兴"}
        entry |= {"audio_label": "悲伤", "visual_label": "恐惧", "video_label": label}
        for part, ending, width in (("text", ".npy", 1024), ("audio", ".npy", 1024), ("visual", ".mp4.npy", 2048)):
            (folder / part / stage).mkdir(parents=True)
            np.save(folder / part / stage / f"{stage}_1{ending}", np.full((1, 3, width), float(len(stage))))
        (folder / f"{stage}.json").write_text(json.dumps([entry], ensure_ascii=False), encoding="utf-8")
    return folder


def test_cherma_comes_out_as_written(tmp_path: Path) -> None:
    folder = cherma(tmp_path / "cherma")
    assert detect(folder) == "cherma"
    dataset = import_dataset(folder, tmp_path / "out")
    names = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    assert dataset.manifest.labels.classes == names
    assert [names[i] for i in dataset.labels] == ["anger", "neutral", "surprise"]
    assert [names[i] for i in dataset.unimodal_labels("vision")] == ["fear"] * 3
    assert [names[i] for i in dataset.unimodal_labels("text")] == ["happy"] * 3
    assert dataset.columns["split"] == ["train", "valid", "test"]
    assert {m: i.dim for m, i in dataset.manifest.modalities.items()} == {"text": 1024, "audio": 1024, "vision": 2048}
    np.testing.assert_array_equal(dataset.sequence("audio", 0), np.full((3, 1024), 5.0))


def test_broken_cherma_is_one_clear_line(tmp_path: Path) -> None:
    folder = cherma(tmp_path / "c")
    file = folder / "audio" / "dev" / "dev_1.npy"
    file.rename(folder / "away.npy")
    with pytest.raises(DataError, match=r"dev_1: audio: no such file .*dev_1\.npy"):
        import_dataset(folder, tmp_path / "out")
    file.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"dev_1\.npy is not a plain \.npy or \.npz file"):
        import_dataset(folder, tmp_path / "out")
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"dev_1\.npy is not a plain"):
        import_dataset(folder, tmp_path / "out")
    text = (folder / "test.json").read_text(encoding="utf-8")
    (folder / "test.json").write_text(text.replace("惊奇", "无聊"), encoding="utf-8")
    with pytest.raises(DataError, match="label '无聊' is none of the classes"):
        import_dataset(folder, tmp_path / "out")
    (folder / "test.json").write_text("[]")
    with pytest.raises(DataError, match=r"test\.json: the split is empty"):
        import_dataset(folder, tmp_path / "out")
