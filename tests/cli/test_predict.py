"""`equipoise predict`: files in, one table or file out, and what is wrong in one line before anything is scored."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.features.clips import square, voice, write_clip

from equipoise.cli.main import main
from equipoise.data.manifest import LabelInfo, ModalityInfo
from equipoise.extraction.choose import choose_recipe
from equipoise.models import LateFusion
from equipoise.scoring.find import find_clips
from equipoise.training.calibration import Calibration, SubsetCalibration
from equipoise.training.model_info import ModelInfo
from equipoise.training.pretrained import save_pretrained

BINS = 4


def save_model(folder: Path, classes: tuple[str, ...] | None = None) -> Path:
    """A model of log-mel spectra alone."""
    recipe = choose_recipe(audio="log-mel", vision=None, text=False, arguments={"audio": {"bins": BINS}})
    outputs = 1 if classes is None else len(classes)
    labels = (
        LabelInfo("regression", 1, (-3.0, 3.0))
        if classes is None
        else LabelInfo("classification", outputs, classes=classes)
    )
    errors = Calibration((0.5, 0.9), {"audio": SubsetCalibration(40, ((0.25,), (0.75,)))})
    modalities = {"audio": ModalityInfo(BINS, "float32", 100, 10, 20.0, 1000, 0)}
    info = ModelInfo(modalities, labels, "made", "made", True, extraction=recipe.to_json(), calibration=errors)
    torch.manual_seed(0)
    return save_pretrained(LateFusion(dims={"audio": BINS}, outputs=outputs, hidden=4), folder, info)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "mine")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "Übung 1.wav", audio=voice(2.0), audio_codec="pcm_s16le")


def told(capsys: pytest.CaptureFixture[str], *command: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert main(["predict", *command, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(["predict", *command]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("equipoise: ")
    assert found.err.count("\n") == 1
    return found.err


def test_one_clip_as_json_and_as_a_table(model: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, str(model), str(clip))
    assert (said["kind"], said["outputs"], said["range"], said["modalities"]) == (
        "regression",
        ["score"],
        [-3.0, 3.0],
        ["audio"],
    )
    (score,) = said["clips"]
    value = score["values"]["score"]
    assert score["id"] == str(clip)
    assert score["interval"]["score"] == pytest.approx([value - 0.75, value + 0.75])
    assert score["baseline"]["score"] + score["contributions"]["audio"]["score"] == pytest.approx(value)
    narrow = told(capsys, str(model), str(clip), "--level", "0.5")["clips"][0]
    assert narrow["interval"]["score"] == pytest.approx([value - 0.25, value + 0.25])
    assert main(["predict", str(model), str(clip)]) == 0
    table = capsys.readouterr().out
    assert f"{value:.3f}" in table
    assert f"{value - 0.75:.3f} to {value + 0.75:.3f}" in table
    assert "90 % of clips" in table


def test_the_three_kinds_of_file_agree(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as parquet

    for kind in ("csv", "json", "parquet"):
        said = told(capsys, str(model), str(clip), "--window", "0.8", "--to", str(tmp_path / f"scores.{kind}"))
    assert json.loads((tmp_path / "scores.json").read_text()) == said
    rows = parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    with (tmp_path / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [row["start"] for row in rows] == pytest.approx([0.0, 0.8, 1.2])
    assert list(lines[0]) == list(rows[0])
    for row, line, score in zip(rows, lines, said["clips"], strict=True):
        assert row["score"] == score["values"]["score"] == float(line["score"])
        assert [row["score_low"], row["score_high"]] == score["interval"]["score"]
        assert (
            row["contribution_audio"] == score["contributions"]["audio"]["score"] == float(line["contribution_audio"])
        )
        assert (row["used"], row["missing"], row["error"], line["error"]) == ("audio", None, None, "")
        assert row["clip"] == line["clip"] == str(clip)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["scores.csv", "scores.json", "scores.parquet"]


def test_classes(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(tmp_path / "m", ("joy", "rage", "calm"))
    said = told(capsys, str(model), str(clip), "--to", str(tmp_path / "s.csv"))["clips"][0]
    with (tmp_path / "s.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    chances = {name: float(row[f"p_{name}"]) for name in ("joy", "rage", "calm")}
    assert sum(chances.values()) == pytest.approx(1)
    assert row["label"] == said["label"] == max(chances, key=lambda name: chances[name])
    likely = [name for name in sorted(chances, key=lambda n: -chances[n]) if chances[name] >= 0.25]
    assert row["likely"].split("; ") == said["likely"] == likely
    assert float(row["contribution_audio"]) == said["contributions"]["audio"][said["label"]]
    assert main(["predict", str(model), str(clip)]) == 0
    assert f"{said['label']}" in capsys.readouterr().out


def test_a_clip_without_a_score_is_exit_code_1(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_clip(tmp_path / "mute.mp4", pictures=[square(i) for i in range(5)], frame_rate=10)
    (score,) = told(capsys, str(model), str(path), "--to", str(tmp_path / "s.csv"), code=1)["clips"]
    assert "nothing that the model reads (audio: " in score["error"]
    with (tmp_path / "s.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["error"] == score["error"]
    assert row["score"] == ""
    assert main(["predict", str(model), str(path)]) == 1
    assert score["error"] in capsys.readouterr().out


def test_what_is_wrong_is_told_before_anything_is_scored(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, here = str(model), str(clip)
    assert "nothing to score" in refused(capsys, one)
    assert "no clip and no folder" in refused(capsys, one, here, "missing.mp4")
    assert "should hold clips" in refused(capsys, one, str(tmp_path))
    assert "is of a single clip. Found 2" in refused(capsys, one, here, str(model / "config.json"), "--text", "a")
    assert "there is no folder" in refused(capsys, str(tmp_path / "no"), here)
    assert "is no saved model" in refused(capsys, str(tmp_path), here)
    assert "of the model, audio. Found smell" in refused(capsys, one, here, "--only", "smell")
    assert "one of 0.5, 0.9" in refused(capsys, one, here, "--level", "0.7")
    assert "`hop` needs `window`" in refused(capsys, one, here, "--hop", "1")
    assert ".csv, .json, .parquet" in refused(capsys, one, here, "--to", str(tmp_path / "s.xlsx"))
    assert "There is no folder" in refused(capsys, one, here, "--to", str(tmp_path / "no" / "s.csv"))
    assert "`--jobs` should be 1 or more" in refused(capsys, one, here, "--jobs", "0")
    assert "reads no text of its own" in refused(capsys, one, "--text", "good")
    assert "unknown flag `--windows`. Did you mean `--window`?" in refused(capsys, one, here, "--windows", "1")
    assert list(tmp_path.iterdir()) == []


def test_folders_are_searched(tmp_path: Path) -> None:
    for name in ("b/two.MP4", "b/one.wav", "b/one.txt", "b/.hidden.mp4", "b/.cache/three.mp4", "a/four.webm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    odd = tmp_path / "b" / "one.txt"
    found = find_clips([tmp_path, odd, tmp_path / "a" / "four.webm"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "a/four.webm",
        "b/one.wav",
        "b/two.MP4",
        "b/one.txt",
    ]
