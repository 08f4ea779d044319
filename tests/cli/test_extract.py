"""`equipoise extract`: from clips to a trained model that knows how they were read; killed, the command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.features.clips import noise, tone, write_clip

from equipoise.cli.main import main
from equipoise.data import load
from equipoise.extraction.recipe import Recipe
from equipoise.training.pretrained import from_pretrained


def call(capsys: pytest.CaptureFixture[str], *argv: Any) -> tuple[int, str, str]:
    code = main(["extract", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tones, the higher the greater their label, and a file that is no clip."""
    folder = tmp_path_factory.mktemp("clips")
    rows = ["file,label,split,text"]
    for row in range(12):
        write_clip(folder / f"{row}.wav", audio=tone(0.5, hertz=200.0 + 100 * row), audio_codec="pcm_s16le")
        rows.append(f"{row}.wav,{row / 4 - 1.25},{('train', 'train', 'valid', 'test')[row % 4]},tone {row}")
    (folder / "none.wav").write_text("nothing")
    (folder / "labels.csv").write_text("\n".join([*rows, "none.wav,0.5,train,"]))
    (folder / "good.csv").write_text("\n".join(rows))
    return folder


def test_from_clips_to_a_model_that_knows_how_they_were_read(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "data"
    given = [folder, "--labels", folder / "labels.csv", "--out", out, "--vision", "none", "--text", "none", "--jobs", 1]
    code, said, err = call(capsys, *given, "--audio.bins", 16)
    assert code == 1
    assert "clips: 12 of 13 used (train 6, valid 3, test 3)" in said
    assert "1 failed, such as none.wav" in said
    assert "audio     log-mel (rate 25.0, bins 16, low 20.0, high 7600.0)     16" in said
    assert "13/13 clips, 1 failed" in err
    small = ["--model.hidden", "4", "--model.encoder", "mean", "--train.epochs", "1"]
    assert main(["train", "--data", str(out), "--out", str(tmp_path / "run"), *small]) == 0
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "model")]) == 0
    _, info = from_pretrained(tmp_path / "model")
    assert info.extraction is not None
    recipe = Recipe(**info.extraction)
    assert recipe.audio is not None
    assert recipe.audio["arguments"]["bins"] == 16
    assert recipe == Recipe(**load(out).manifest.extra["extraction"])


def test_json_has_the_same(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said, _ = call(
        capsys, folder, "--labels", folder / "good.csv", "--out", tmp_path / "d", "--vision", "none", "--json"
    )
    found = json.loads(said)
    assert code == 0
    assert found["clips"] == {"listed": 12, "used": 12}
    assert found["splits"] == {"train": 6, "valid": 3, "test": 3}
    assert found["unused"] == []
    assert found["extra"]["extraction"]["audio"]["name"] == "log-mel"
    assert Path(found["report"]).is_file()
    assert load(tmp_path / "d").texts == [f"tone {row}" for row in range(12)]


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--audio", "mell"], "Unknown audio extractor `mell`"),
        (["--audio.binz", "3"], "Unknown config key `audio.binz`. Did you mean `audio.bins`?"),
        (["--sound.bins", "3"], "Unknown part of an extraction `sound`"),
        (["--labels", "gone.csv"], "gone.csv: no such file"),
        (["--map", "label"], "`--map` takes NAME=VALUE. Found 'label'."),
        (["--jobs", "0"], "Parameter `--jobs` should be 1 or more"),
        (["--scale", "sims"], "labels.csv: Parameter `labels` should lie in [-1, 1]"),
        (["--align", "words", "--text", "none"], "words need transcripts"),
        (["--speech", "sphinks"], "Unknown recogniser `sphinks`"),
    ],
)
def test_bad_input_is_one_line(
    flags: list[str], part: str, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = [folder, "--labels", folder / "labels.csv", "--out", tmp_path / "d", "--vision", "none", *flags]
    code, said, err = call(capsys, *given)
    assert (code, said) == (2, "")
    assert part in err
    assert err.count("\n") == 1
    assert not (tmp_path / "d").exists()


def test_killed_it_goes_on_and_does_nothing_twice(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clips, out, done = tmp_path / "clips", tmp_path / "data", tmp_path / "data.clips" / "done"
    clips.mkdir()
    rows = ["file,label,split"]
    for row in range(20):
        write_clip(clips / f"{row}.wav", audio=noise(10, seed=row), audio_codec="pcm_s16le")
        rows.append(f"{row}.wav,{row}.5,train")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    given = [str(each) for each in (clips, "--labels", tmp_path / "labels.csv", "--out", out, "--vision", "none")]
    started = subprocess.Popen(
        [sys.executable, "-m", "equipoise", "extract", *given, "--jobs", "1"],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while started.poll() is None and not (done.is_dir() and len(list(done.glob("*.json"))) > 1):
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL, "it had ended before it could be killed"
    assert not out.exists()
    before = {path.name: path.read_bytes() for path in done.glob("*.json")}
    assert 1 < len(before) < 20
    code, _, err = call(capsys, *given, "--jobs", 1)
    assert code == 0
    assert f"20/20 clips, {len(before)} from before" in err
    assert {name: (done / name).read_bytes() for name in before} == before
    data = load(out)
    assert data.labels.tolist() == [row + 0.5 for row in range(20)]
    assert [len(data.sequence("audio", row)) for row in range(20)] == [250] * 20
    assert len({data.sequence("audio", row).tobytes() for row in range(20)}) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "data", "data.clips", "labels.csv"]
    assert np.isfinite(data.sequence("audio", 0)).all()
