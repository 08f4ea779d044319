"""`equipoise data`: import, describe, verify, split."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.cli.main import main
from equipoise.data import checksums, load


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight rows of four speakers; two audio values are not finite, row 7 repeats the audio of row 0."""
    audio = np.arange(8 * 3 * 2, dtype=np.float32).reshape(8, 3, 2) + 1
    audio[7] = audio[0]
    audio[1, 0] = [-np.inf, np.nan]
    path = tmp_path / "own.npz"
    np.savez(
        path,
        label=np.array([0.5, -1, 2, 3, -3, 0, 1, -2]),
        split=np.array(["train"] * 5 + ["valid"] + ["test"] * 2),
        speaker=np.array(list("aabbccdd")),
        mfcc=audio,
    )
    return path


def call(capsys: pytest.CaptureFixture[str], *argv: Any) -> tuple[int, str, str]:
    code = main(["data", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def test_import_prints_what_came_in_and_what_was_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, source: Path
) -> None:
    code, out, err = call(capsys, "import", source, "--to", tmp_path / "d", "--map", "audio=mfcc", "--scale", "mosi")
    assert (code, err) == (0, "")
    assert "samples: 8 (train 5, valid 1, test 2)" in out
    assert "range [-3, 3]" in out
    assert "repaired: 2 values" in out
    assert "1 speaker in two splits (train, valid), such as 'c'" in out
    assert "1 audio sequence in two splits (train, test), such as rows 0 and 7" in out
    assert "2 validation and test samples are affected" in out
    row = next(line.split() for line in out.splitlines() if line.startswith("audio"))
    assert row == ["audio", "2", "float32", "3", "3.000", "3", "0", "2"]
    assert load(tmp_path / "d").speakers == list("aabbccdd")


def test_json_has_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path, source: Path) -> None:
    _, out, _ = call(capsys, "import", source, "--to", tmp_path / "d", "--map", "audio=mfcc", "--json")
    found = json.loads(out)
    assert found["splits"] == {"train": 5, "valid": 1, "test": 2}
    assert found["modalities"]["audio"]["repaired"] == 2
    assert found["leakage"]["leaks"] is True
    assert found["leakage"]["speakers"] == 1
    assert found["published"] is None
    _, out, _ = call(capsys, "describe", tmp_path / "d", "--json")
    again = json.loads(out)
    assert {key: again[key] for key in ("splits", "modalities", "leakage")} == {
        key: found[key] for key in ("splits", "modalities", "leakage")
    }
    _, out, _ = call(capsys, "describe", tmp_path / "d")
    assert "samples: 8 (train 5, valid 1, test 2)" in out


def test_a_published_file_is_named_and_an_impostor_warned_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {"id": ["v$_$1", "v$_$2"], "audio": np.ones((2, 3, 2)), "regression_labels": np.array([1.0, -1.0])}
    path = tmp_path / "aligned_50.pkl"
    path.write_bytes(pickle.dumps({"train": part}))
    code, out, _ = call(capsys, "import", path, "--to", tmp_path / "d")
    assert code == 0
    assert "warning: aligned_50.pkl is named like a published file (MOSI aligned_50, MOSEI aligned_50)" in out
    monkeypatch.setitem(checksums.KNOWN, checksums.identify(path).sha256, ("MOSI", "aligned_50"))
    _, out, _ = call(capsys, "import", path, "--to", tmp_path / "e")
    assert "checksum: MOSI aligned_50 (published)" in out
    assert "warning" not in out
    _, out, _ = call(capsys, "describe", tmp_path / "e")
    assert "checksum: MOSI aligned_50 (published)" in out


def test_generate_writes_the_shape_and_says_what_is_uncertain(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = ("generate", "--shape", "mustard", "--to", tmp_path / "d", "--scale", "0.02", "--seed", 3)
    code, out, err = call(capsys, *argv)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("mustard, generated, from synthetic")
    assert "samples: 13 (train 11, valid 1, test 1)" in out
    assert "synthetic data" in out
    assert "shape of: MUStARD" in out
    assert "uncertain: 690 utterances are published" in out
    assert load(tmp_path / "d").manifest.extra["truth"]["seed"] == 3
    assert call(capsys, *argv)[0] == 2  # it is there
    _, out, _ = call(capsys, *argv, "--overwrite", "--json")
    found = json.loads(out)
    assert (found["shape"], found["scale"], found["splits"]) == ("mustard", 0.02, {"train": 11, "valid": 1, "test": 1})


def test_verify_tells_damage_from_leakage(capsys: pytest.CaptureFixture[str], tmp_path: Path, source: Path) -> None:
    call(capsys, "import", source, "--to", tmp_path / "d", "--map", "audio=mfcc")
    code, out, _ = call(capsys, "verify", tmp_path / "d")
    assert code == 0  # leakage is a finding, not damage
    assert "files match their checksums" in out
    assert "1 speaker in two splits" in out
    content = bytearray((tmp_path / "d" / "audio.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "d" / "audio.npy").write_bytes(content)
    code, out, _ = call(capsys, "verify", tmp_path / "d")
    assert code == 1
    assert "damaged: " in out
    assert "audio.npy" in out
    code, out, _ = call(capsys, "verify", tmp_path / "d", "--json")
    found = json.loads(out)
    assert code == 1
    assert found["intact"] is False
    assert found["leakage"] is None


def test_a_dataset_that_cannot_be_opened_is_damaged(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, source: Path
) -> None:
    call(capsys, "import", source, "--to", tmp_path / "d", "--map", "audio=mfcc")
    (tmp_path / "d" / "labels.npy").unlink()
    code, out, err = call(capsys, "verify", tmp_path / "d")
    assert (code, err) == (1, "")
    assert "labels.npy" in out
    (tmp_path / "d" / "manifest.json").write_text("{")
    code, out, _ = call(capsys, "verify", tmp_path / "d", "--json")
    assert code == 1
    assert "manifest.json" in json.loads(out)["damage"][0]


def test_split_by_speaker_ends_the_leak(capsys: pytest.CaptureFixture[str], tmp_path: Path, source: Path) -> None:
    call(capsys, "import", source, "--to", tmp_path / "d", "--map", "audio=mfcc")
    code, out, _ = call(
        capsys, "split", tmp_path / "d", "--to", tmp_path / "s", "--fractions", "0.5", "0.25", "0.25", "--seed", "1"
    )
    assert code == 0
    assert "split: no speaker in two splits, seed 1" in out
    assert "samples: 8 (train 4, valid 2, test 2)" in out
    _, out, _ = call(capsys, "split", tmp_path / "d", "--to", tmp_path / "t", "--test-speakers", "d", "b", "--json")
    assert json.loads(out)["leakage"]["speakers"] == 0
    assert load(tmp_path / "t").rows("test").tolist() == [2, 3, 6, 7]
    call(
        capsys,
        "split",
        tmp_path / "d",
        "--to",
        tmp_path / "k",
        "--keep-test",
        "--by",
        "none",
        "--fractions",
        ".5",
        ".5",
        "0",
    )
    assert load(tmp_path / "k").rows("test").tolist() == load(tmp_path / "d").rows("test").tolist()
    assert load(tmp_path / "k").manifest.splits == {"train": 3, "valid": 3, "test": 2}


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["import", "missing.pkl", "--to", "x"], "No such file or folder: missing.pkl."),
        (["import", "own.npz", "--to", "x"], "own.npz: "),
        (["import", "own.npz", "--to", "x", "--map", "audio"], "`--map` takes NAME=VALUE. Found 'audio'."),
        (["import", "own.npz", "--to", "x", "--format", "parquet"], "Parameter `format`"),
        (["import", "own.npz", "--to", "x", "--fold", "1"], "Option `fold` does not apply to format npz"),
        (["import", "evil.pkl", "--to", "x"], "evil.pkl is refused: it refers to `builtins.eval`"),
        (["describe", "nowhere"], "nowhere"),
        (["generate", "--to", "x", "--shape", "mustart"], "Unknown shape `mustart`. Did you mean `mustard`?"),
        (["generate", "--to", "x", "--shape", "mosi", "--scale", "2"], "`scale` should be above 0 and at most 1"),
        (["verify", "nowhere"], "nowhere"),
        (["split", "d", "--to", "s", "--by", "group"], "records no groups"),
        (["split", "d", "--to", "s", "--test-speakers", "z"], "no speaker 'z'"),
        (["split", "d", "--to", "s", "--by", "none", "--test-speakers", "a"], "needs `--by speaker`"),
        (["split", "d", "--to", "s", "--test-groups", "a", "--test-speakers", "a"], "can't be used together"),
        (["split", "d", "--to", "d"], "d"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    call(capsys, "import", source, "--to", "d", "--map", "audio=mfcc")
    if "--format" not in argv and line == "own.npz: ":
        np.savez(source, label=np.array([0.5, 7.0]), audio=np.ones((2, 2)), split=np.array(["train", "test"]))
        argv = [*argv, "--scale", "mosi"]
    (tmp_path / "evil.pkl").write_bytes(b'cbuiltins\neval\n(S\'open("created", "w")\'\ntR.')
    code, out, err = call(capsys, *argv)
    assert code == 2
    assert out == ""
    assert line in err
    assert err.count("\n") == 1
    assert not (tmp_path / "created").exists()
    assert not (tmp_path / "x").exists()
