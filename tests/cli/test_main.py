from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from equipoise.cli.main import COMMANDS, main


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command line that should fail; the one line it says."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("equipoise: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err.removeprefix("equipoise: ").strip()


def process(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    command = ["-c", code] if code else ["-m", "equipoise"]
    return subprocess.run(
        [sys.executable, *command, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert f"  {name:<12}{summary}" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: equipoise {name}")
    assert err == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from equipoise import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"equipoise {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian"], "unknown command `trian`. Did you mean `train`? See `equipoise --help`."),
        (["zzz"], "unknown command `zzz`. See `equipoise --help`."),
        (["--versio"], "unknown flag `--versio`. Did you mean `--version`? See `equipoise --help`."),
        (["list", "--jsn"], "unknown flag `--jsn`. Did you mean `--json`? See `equipoise list --help`."),
        (["train", "--otu", "x"], "unknown flag `--otu`. Did you mean `--out`? See `equipoise train --help`."),
        (
            ["list", "modles"],
            "unknown `modles`. Did you mean `models`? Valid: presets, models, balancers, metrics, formats, shapes, "
            "extractors, all. See `equipoise list --help`.",
        ),
        (["evaluate"], "the following arguments are required: RUN_DIR. See `equipoise evaluate --help`."),
        (["train", "a.yaml", "b.yaml"], "unknown argument `b.yaml`. See `equipoise train --help`."),
        (["train", "nowhere.yaml"], "Config file not found: nowhere.yaml."),
        (["train", "--seed", "one"], "argument --seed: invalid int value: 'one'. See `equipoise train --help`."),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    assert failed(capsys, *arguments) == line


def test_a_missing_workbench_is_one_line() -> None:
    code = "import sys; sys.modules['pydantic'] = None; from equipoise.cli.main import main; sys.exit(main(['train']))"
    done = process(code=code)
    assert done.returncode == 2
    assert done.stderr == 'equipoise: the command line needs the workbench: pip install "equipoise[workbench]"\n'


def test_any_other_missing_module_is_a_bug_and_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "equipoise.cli.list", None)
    with pytest.raises(ModuleNotFoundError):
        main(["list"])


def test_in_a_process_the_exit_code_and_the_line_arrive(tmp_path: Path) -> None:
    done = process("train", str(tmp_path / "nowhere.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"equipoise: Config file not found: {tmp_path / 'nowhere.yaml'}.\n"


def test_help_stays_away_from_heavy_libraries() -> None:
    code = (
        "import sys; from equipoise.cli.main import main; before = set(sys.modules); main(['--help']); "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}), file=sys.stderr)"
    )
    done = process(code=code)
    assert done.returncode == 0
    heavy = {"transformers", "matplotlib", "torchmetrics", "accelerate", "pydantic", "rich", "h5py", "numpy", "torch"}
    assert not heavy & set(eval(done.stderr))
