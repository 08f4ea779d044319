from __future__ import annotations

import csv
import json
import statistics
from contextlib import redirect_stderr, suppress
from pathlib import Path

import pytest
import yaml

from equipoise.cli import progress
from equipoise.cli.main import main
from equipoise.cli.train import own_metric
from equipoise.report.tables import cell_text, spread

SMALL = ("--model.hidden", "4", "--model.encoder", "mean", "--train.epochs", "2", "--train.batch_size", "16")


def train(*arguments: str) -> int:
    return main(["train", *arguments, *SMALL])


def test_two_seeds_leave_their_runs_a_summary_and_plots(small_runs: Path) -> None:
    for seed in (0, 1):
        folder = small_runs / f"seed-{seed}"
        for name in ("config.yaml", "metrics.csv", "steps.csv", "test.json", "predictions.csv"):
            assert (folder / name).is_file()
        assert (folder / "checkpoint").is_dir()
        assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == seed
    for name in ("loss", "norms", "own"):
        assert (small_runs / "plots" / f"{name}.svg").is_file()
        assert (small_runs / "plots" / f"{name}.png").is_file()


def test_table_summary_and_test_files_agree(
    small_runs: Path, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("--data", str(small_data), "--out", str(small_runs), "--balancer", "ags", "--seeds", "0", "1")
    assert train(*command) == 0  # finished: shown again, not trained again
    out, err = capsys.readouterr()
    assert err == ""
    tests = [json.loads((small_runs / f"seed-{seed}" / "test.json").read_text()) for seed in (0, 1)]
    summary = json.loads((small_runs / "summary.json").read_text())
    values = [test["metrics"]["mae"] for test in tests]
    assert summary["metrics"]["mae"]["mean"] == pytest.approx(statistics.mean(values))
    assert summary["metrics"]["mae"]["sd"] == pytest.approx(statistics.stdev(values))
    lines = out.splitlines()
    assert lines[0] == "LateFusion, ags, on synthetic [synthetic data]"
    assert lines[2].split() == ["test", "fused", "text", "audio", "vision"]
    mae = next(line for line in lines if line.startswith("mae "))
    own = [spread([test["modalities"][m]["mae"] for test in tests]) for m in ("text", "audio", "vision")]
    assert " ".join(mae.split()) == " ".join(["mae", cell_text(spread(values)), *map(cell_text, own)])
    assert "Protocol honest: epoch chosen by validation mae. Mean ± standard deviation over seeds 0, 1." in out
    assert lines[-1] == f"Run directory: {small_runs}"


def test_one_seed_shows_its_interval_and_plain_progress(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "one"
    assert train("--data", str(small_data), "--out", str(out), "--seed", "5") == 0
    stdout, stderr = capsys.readouterr()
    test = json.loads((out / "test.json").read_text())
    assert test["seed"] == 5
    low, high = test["interval"]["mae"]
    assert f"{low:.3f} to {high:.3f}" in stdout
    assert "no balancer (plain)" in stdout
    # 42 utterances to train on, 16 a step: three steps an epoch, the last of which ends within the first five seconds.
    assert [line.partition(",")[0] for line in stderr.splitlines()] == ["seed 5: step 6/6"]
    assert stderr.count("valid mae") == 1


def test_a_long_run_says_where_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.training_progress(1) as start:
        update = start("seed 5")
        update(1, 2, None)
        update(1, 2, {"epoch": 1, "train_loss": 0.5, "valid/mae": 0.25})
        update(2, 2, {"epoch": 2, "train_loss": 0.5, "valid/mae": 0.25})
    assert capsys.readouterr().err.splitlines() == [
        "seed 5: step 1/2, epoch 1, loss 0.500, valid mae 0.250",
        "seed 5: step 2/2, epoch 2, loss 0.500, valid mae 0.250",
    ]


def test_json_is_what_the_run_directory_holds(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train("--data", str(small_data), "--out", str(out), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["run"] == str(out)
    assert printed["results"] == [json.loads((out / "test.json").read_text())]
    assert sorted(printed["plots"]) == sorted(str(path) for path in (out / "plots").iterdir())


def test_paper_prints_both_figures_and_the_gap(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "paper"
    assert train("--data", str(small_data), "--out", str(out), "--protocol", "paper") == 0
    lines = capsys.readouterr().out.splitlines()
    test = json.loads((out / "test.json").read_text())
    honest, selected = test["metrics"]["mae"], test["test_selected"]["metrics"]["mae"]
    assert selected <= honest
    low, high = test["interval"]["mae"]
    shown = f"mae {honest:.3f} {low:.3f} to {high:.3f} {selected:.3f} {selected - honest:.3f} "
    assert " ".join(next(line for line in lines if line.startswith("mae ")).split()).startswith(shown)


def test_flags_go_over_the_file_and_reach_the_run(small_data: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"data": str(small_data), "train": {"epochs": 9, "lr": 0.004}}))
    out = tmp_path / "run"
    flags = ["--train.epochs=1", "--model.hidden", "4", "--modalities", "audio,text", "--model.encoder", "mean"]
    assert main(["train", *flags, str(config), "--out", str(out)]) == 0
    used = yaml.safe_load((out / "config.yaml").read_text())
    assert (used["train"]["epochs"], used["train"]["lr"], used["model"]["hidden"]) == (1, 0.004, 4)
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
    assert {"valid/text/mae", "norm/audio"} <= rows[0].keys()
    assert not any("vision" in name for name in rows[0])


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--train.epoch", "3"], "Unknown config key `train.epoch`. Did you mean `train.epochs`?"),
        (["--train.epochs", "many"], "Config key `train.epochs`"),
        (["--balancer", "agss"], "Did you mean `ags`?"),
        (["--balancer", "ags", "--balancer.alfa", "1"], "Did you mean `balancer.alpha`?"),
        (["--balancer", "ags", "--balancer.alpha", "-1"], "`alpha` should be non-negative. Found `alpha = -1"),
        (["--model", "LateFusoin"], "Did you mean `LateFusion`?"),
        (["--modalities", "text,odor"], "Unknown modality `odor`"),
        (["--epochs", "3"], "unknown flag `--epochs`"),
        (["--seeds", "1", "1"], "Parameter `--seeds` should be distinct"),
        (["--seeds", str(2**64)], "Parameter `--seeds` should be distinct, from 0 to 18446744073709551615. Found 1844"),
        (["--seed", "1", "--seeds", "1"], "not allowed with"),
    ],
)
def test_a_wrong_setting_is_one_line(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], part: str
) -> None:
    assert main(["train", "--data", str(small_data), "--out", str(tmp_path / "x"), *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("equipoise: ")
    assert err.count("\n") == 1
    assert part in err


@pytest.mark.parametrize(
    ("text", "part"),
    [("train: [", "is not valid YAML"), ("- 1\n", "should hold a mapping"), ("sede: 3\n", "Did you mean `seed`?")],
)
def test_a_broken_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, part: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    assert main(["train", str(tmp_path / "run.yaml"), "--data", "x"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert part in err


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_no_dataset_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["train", "--data", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err == (
        f"equipoise: {tmp_path / name} is no dataset: manifest.json not found. Make one with `equipoise data import`.\n"
    )


def test_another_config_in_the_same_directory_is_refused_until_told(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("--data", str(small_data), "--out", str(tmp_path / "run"))
    assert train(*command) == 0
    assert train(*command, "--train.lr", "0.01") == 2
    assert "train.lr" in capsys.readouterr().err
    assert train(*command, "--train.lr", "0.01", "--no-resume") == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["lr"] == 0.01


def test_one_run_and_several_do_not_mix(
    small_runs: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--data", str(small_data), "--out", str(small_runs)) == 2
    assert "holds runs for several seeds" in capsys.readouterr().err
    (tmp_path / "config.yaml").touch()
    assert train("--data", str(small_data), "--out", str(tmp_path), "--seeds", "0", "1") == 2
    assert "holds a run for one seed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_terminal_that_was_closed_stops_no_training(small_data: Path, tmp_path: Path) -> None:
    gone = open("/dev/full", "w", buffering=1)  # noqa: SIM115 - closing it fails, as writing does
    with redirect_stderr(gone):
        assert train("--data", str(small_data), "--out", str(tmp_path / "run")) == 0
    with suppress(OSError):
        gone.close()
    assert (tmp_path / "run" / "test.json").is_file()


def test_an_interrupt_is_one_line_and_the_run_resumes(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from equipoise.cli import progress

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train("--data", str(small_data), "--out", str(whole)) == 0
    calm = progress._status

    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "_status", interrupt)
    capsys.readouterr()
    assert train("--data", str(small_data), "--out", str(stopped)) == 130
    assert capsys.readouterr().err == "equipoise: stopped. The same command resumes the run.\n"
    assert not (stopped / "test.json").exists()
    monkeypatch.setattr(progress, "_status", calm)
    assert train("--data", str(small_data), "--out", str(stopped)) == 0
    assert (stopped / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert (stopped / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()


def test_own_metric_prefers_an_accuracy() -> None:
    assert own_metric(["valid/mae", "valid/corr", "valid/acc2_pn"]) == "acc2_pn"
    assert own_metric(["valid/mae", "valid/corr"]) == "corr"
    assert own_metric(["valid/text/accuracy", "valid/accuracy"]) == "accuracy"


def test_a_preset_is_read_by_name_and_takes_text_features_where_there_are_no_transcripts(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "cpsl-mosi", "--data", str(small_data), "--out", str(tmp_path / "run"), "--train.epochs", "1"]
    assert main(command) == 2
    assert capsys.readouterr().err == (
        f"equipoise: `text.encoder = 'bert-base-uncased'` reads transcripts, and {small_data} has none. Leave it out "
        "(`--text none`), or import the texts.\n"
    )
    assert main([*command, "--text", "none"]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["model"]["name"] == "CPSL"
    assert [each["name"] for each in config["balancer"]] == ["sl", "cp"]
    assert config["text"] == {"encoder": None, "mode": "finetune", "lr": 2e-5, "max_tokens": 64}
    assert config["train"]["epochs"] == 1
