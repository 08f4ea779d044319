"""One clear line for whatever is not a saved model, and for what cannot be one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.models.builders import DIMS, Lookup
from tests.training.saved_models import info
from torch import nn

from equipoise.models import LMF, TFN, LateFusion
from equipoise.training.model_config import is_pretrained
from equipoise.training.model_info import TextInfo
from equipoise.training.pretrained import from_pretrained, save_pretrained


def spoil(**changes: Any) -> Callable[[Path], object]:
    """Change entries of `config.json`; None takes one out."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config.update(changes)
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return change


def cut(name: str, size: int) -> Callable[[Path], object]:
    """Truncate a file."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def foreign(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["BertModel"], "hidden_size": 768}')


def other_weights(folder: Path) -> None:
    """Whole files that agree with their digests, of another model than the config's."""
    config = json.loads((folder / "config.json").read_text())
    config["model"]["arguments"]["hidden"] = 5
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (cut("model.safetensors", 900), r"model.safetensors should be the file that was saved. It is damaged"),
        (cut("config.json", 60), r"config.json is damaged: it is not JSON"),
        (lambda folder: (folder / "config.json").unlink(), r"is no saved model: config.json not found"),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            r"model.safetensors should be the file that was saved",
        ),
        (foreign, r"is no model that equipoise saved"),
        (spoil(version=2, equipoise="9.1"), r"version 1. Found 2, written by equipoise 9.1: install that version"),
        (spoil(model=None), r"config.json is damaged: `model` should be there as a dict"),
        (spoil(model={"name": "LMF"}), r"config.json is damaged: `arguments` should be there"),
        (spoil(model={"name": "Oracle", "arguments": {}}), r"a model that this version of equipoise does not have"),
        (spoil(model={"name": "LMF", "arguments": {"dims": DIMS, "magic": 1}}), r"LMF can't be built .* 'magic'"),
        (spoil(info={"labels": 3}), r"config.json is damaged: `info"),
        (spoil(files={}), r"The weights in .* are not those of its LMF"),
        (other_weights, r"The weights in .* are not those of its LMF"),
    ],
)
def test_what_is_no_whole_saved_model_is_one_line(saved: Path, damage: Callable[[Path], object], part: str) -> None:
    if part.startswith("The weights") and damage is not other_weights:
        (saved / "model.safetensors").unlink()
    damage(saved)
    with pytest.raises((ValueError, FileNotFoundError), match=part) as error:
        from_pretrained(saved)
    assert "\n" not in str(error.value)


def test_only_a_saved_model_is_replaced_and_only_if_asked(saved: Path, tmp_path: Path) -> None:
    other = TFN(dims=DIMS, hidden=4, text_hidden=4, fusion_hidden=4)
    with pytest.raises(FileExistsError, match=r"is there already: replace it"):
        save_pretrained(other, saved, info())
    assert type(from_pretrained(saved)[0]) is LMF
    save_pretrained(other, saved, info(), overwrite=True)
    assert type(from_pretrained(saved)[0]) is TFN
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("chapter one")
    with pytest.raises(FileExistsError, match=r"precious is there already: give another one"):
        save_pretrained(other, precious, info(), overwrite=True)
    assert (precious / "thesis.tex").read_text() == "chapter one"
    assert not is_pretrained(precious)


class Own(LateFusion):
    """A subclass that its user wrote."""


@pytest.mark.parametrize(
    ("make", "given", "part"),
    [
        (lambda: nn.Linear(2, 1), {}, r"should be a model of `equipoise.models`. Found a Linear"),
        (lambda: Own(dims=DIMS), {}, r"Found a Own"),
        (lambda: LMF(dims=DIMS, outputs=2), {}, r"should have the model's widths and outputs, .* 2\)\. Found .* 1\)"),
        (lambda: LMF(dims={**DIMS, "audio": 9}), {}, r"should have the model's widths and outputs"),
        (lambda: LMF(dims=dict(reversed(DIMS.items()))), {}, r"should have the model's widths and outputs"),
        (lambda: LMF(dims=DIMS, text_encoder=Lookup()), {}, r"should be a `TextEncoder`. Found a Lookup"),
        (
            lambda: LMF(dims=DIMS),
            {"text": TextInfo("minilm", "", "finetune", 9)},
            r"`text` of mode finetune if the model holds a text encoder, and only then. .* for none",
        ),
        (lambda: LMF(dims=DIMS), {"run": {"loss": float("nan")}}, r"values that JSON can hold"),
    ],
)
def test_what_can_not_be_saved_is_one_line(
    make: Callable[[], nn.Module], given: dict[str, Any], part: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=part) as error:
        save_pretrained(make(), tmp_path / "saved", info(**given))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_nowhere_is_one_line_at_once() -> None:
    # The test run sets HF_HUB_OFFLINE before the hub's client is imported.
    with pytest.raises(FileNotFoundError, match=r"neither a folder nor in the local hub cache, and HF_HUB_OFFLINE"):
        from_pretrained("some-body/some-model-that-is-not-cached")
    with pytest.raises(FileNotFoundError, match=r"'a/b' at revision 'v2' is neither"):
        from_pretrained("a/b", revision="v2")
    with pytest.raises(FileNotFoundError, match="neither a folder nor a valid hub name"):
        from_pretrained("not a name!!")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        from_pretrained("./nowhere")


def test_a_hub_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(FileNotFoundError, match=r"http://127.0.0.1:9 cannot be reached"):
        from_pretrained("some-body/some-model-that-is-not-cached")
