from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from equipoise.data import DataError, LabelInfo, Manifest, ModalityInfo
from equipoise.data.manifest import sha256

MANIFEST = Manifest(
    name="tiny",
    source="hand",
    synthetic=False,
    samples=2,
    labels=LabelInfo("regression", 1, range=(-3.0, 3.0), scale="mosi"),
    modalities={"audio": ModalityInfo(5, "float32", 7, 3, 3.5, 4, 0, repaired=2, extractor="MFCC")},
    splits={"train": 2},
    files={"audio.npy": "0" * 64},
    columns=("id", "split", "text"),
    unimodal=("audio",),
    extra={"fold": [1, 2], "name": "é"},
)


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(MANIFEST.to_json()), **changes})


def test_json_and_back() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert MANIFEST.task == "regression"


BAD = {
    "not json": ("{", "is not JSON"),
    "not an object": ("[]", "one JSON object. Found list"),
    "other version": (changed(version=0), "version 1. Found 0; import the data again"),
    "newer version": (changed(version=2), "version 1. Found 2; a newer equipoise wrote it, so install that"),
    "unknown key": (changed(colour=1), "unknown key `colour`"),
    "missing key": (json.dumps({"version": 1}), "missing key `files`, `labels`, `modalities`, `name`"),
    "wrong type": (changed(samples="2"), "`samples` should be int. Found '2'"),
    "labels": (changed(labels=[]), "`labels` should be a JSON object. Found \\[\\]"),
    "counts": (changed(splits={"train": "x"}), "`splits` should be dict"),
    "number for a list": (changed(columns=5), "`columns` should be list"),
    "negative": (changed(samples=-1), "`samples` should be int. Found -1"),
    "other kind": (changed(labels={"kind": "ranking", "outputs": 1}), "`kind` should be Task. Found 'ranking'"),
    "short range": (changed(labels={"kind": "regression", "outputs": 1, "range": [1]}), "labels: `range` should be"),
    "label key": (changed(labels={"kind": "regression"}), "labels: missing key `outputs`"),
    "modality": (changed(modalities={"audio": 5}), "`audio` should be a JSON object"),
    "modality key": (changed(modalities={"audio": {}}), "modality `audio`: missing key `dim`"),
    "modality outside": (changed(modalities={"../../etc/passwd": {}}), "can't name a modality"),
    "array outside": (changed(arrays=["/etc/passwd"]), "can't name a modality"),
    "file outside": (changed(files={"../secret": "0"}), "a plain file name inside"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_manifest_is_refused_in_one_line(name: str) -> None:
    text, message = BAD[name]
    with pytest.raises(DataError, match=message) as caught:
        Manifest.from_json(text, where="set/manifest.json")
    assert str(caught.value).startswith("set/manifest.json")
    assert "\n" not in str(caught.value)


def test_checksum_is_of_the_whole_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than the pieces it is read in
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
