"""Models on the disk: the weights decide, wherever they lie, and no settings tell where that is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from equipoise.features.local_models import MODELS, arguments_of, find_model, model_places, model_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODELS, raising=False)


def save(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_settings_tell_name_and_weights_and_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = save(tmp_path / "ours" / "tiny"), save(tmp_path / "theirs" / "tiny")
    settings = model_settings(ours)
    assert settings == {"model": "tiny", "weights": hashlib.sha256(b"weights").hexdigest()}
    assert model_settings(str(theirs)) == settings
    assert model_settings(save(tmp_path / "other" / "tiny", b"others"))["weights"] != settings["weights"]
    monkeypatch.chdir(ours)
    assert model_settings(".") == model_settings("../tiny/") == settings
    file = tmp_path / "face.task"
    file.write_bytes(b"weights")
    assert model_settings(file) == {"model": "face.task", "weights": settings["weights"]}
    assert model_settings(None) == {"model": None, "weights": None}


def test_a_model_is_found_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = save(tmp_path / "here" / "tiny")
    settings: dict[str, Any] = {"name": "whisper", "arguments": {}, **model_settings(here)}
    assert find_model(settings, [here]) == str(here)
    assert find_model(settings, [tmp_path / "none", tmp_path / "here"]) == str(here)
    monkeypatch.chdir(tmp_path)
    assert find_model(settings, ["here"]) == str(here)
    monkeypatch.setenv(MODELS, os.pathsep.join([str(tmp_path / "none"), str(tmp_path / "here")]))
    assert find_model(settings) == str(here)
    monkeypatch.delenv(MODELS)
    called_otherwise = shutil.copytree(here, tmp_path / "renamed")
    assert find_model(settings, [called_otherwise]) == str(called_otherwise)
    wrong = save(tmp_path / "wrong" / "tiny", b"others")
    assert find_model(settings, [wrong, wrong.parent, here]) == str(here)
    assert find_model({"name": "log-mel", "arguments": {}}) is None
    assert find_model({"name": "face-mesh", "arguments": {}, **model_settings(None)}) is None


def test_a_model_that_is_not_here_is_one_line(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"name": "whisper", "arguments": {}, **model_settings(save(tmp_path / "here" / "tiny"))}
    weights = hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(FileNotFoundError) as error:
        find_model(settings, [tmp_path / "none"])
    assert str(error.value) == (
        f"`whisper` needs the model `tiny` with weights of SHA-256 {weights[:12]}. Found none: name the folder that "
        f"holds it, `--models DIR` or EQUIPOISE_MODELS."
    )
    wrong = save(tmp_path / "wrong" / "tiny", b"others")
    others = hashlib.sha256(b"others").hexdigest()[:12]
    for place in (wrong, wrong.parent):
        with pytest.raises(FileNotFoundError, match=rf"Found other weights of that name \(SHA-256 {others}\)"):
            find_model(settings, [place])


def test_settings_of_others_lead_to_no_place_outside(tmp_path: Path) -> None:
    """Settings come from whoever published a model: neither their path nor a name with folders in it is followed."""
    secret = save(tmp_path / "secret" / "tiny")
    settings = {"name": "whisper", **model_settings(secret)}
    (tmp_path / "models").mkdir()
    for name in ("../secret/tiny", str(secret), "..", ""):
        with pytest.raises(FileNotFoundError):
            find_model({**settings, "model": name}, [tmp_path / "models"])
    assert arguments_of({"name": "face-mesh", "arguments": {"rate": 5, "path": str(secret)}}, []) == {"rate": 5}
    found = arguments_of({**settings, "arguments": {"path": "elsewhere"}}, [secret])
    assert found == {"path": str(secret)}


def test_places_are_absolute_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(MODELS, os.pathsep.join(["b", "", "a"]))
    assert model_places(["a", "~/c"]) == tuple(str(tmp_path / name) for name in "acb")
    assert json.dumps(model_settings(save(tmp_path / "tiny"))).find(str(tmp_path)) == -1
