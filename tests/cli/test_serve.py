from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.features.clips import voice, write_clip
from tests.serve.models import save_model, sound_recipe

from equipoise.cli.main import main

pytest.importorskip("fastapi")
pytest.importorskip("av")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "Parameter `port` should be in 0 to 65535"),
        (["--workers", "0"], "Parameter `workers` should be 1 or more"),
        (["--token", "two words"], "The token should be printable ASCII without spaces."),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid:8000 can't be listened at"),
        (["--colour"], "unknown flag `--colour`"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert main(["serve", "nowhere", *flags]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_an_address_that_is_taken_and_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "nowhere", "--port", str(taken.getsockname()[1])]) == 2
    assert "in use" in capsys.readouterr().err
    assert main(["serve", "nowhere", "--port", "0"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_it_answers_and_leaves_nothing_when_terminated_at_work(tmp_path: Path) -> None:
    model = save_model(tmp_path, sound_recipe())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "equipoise", "serve", str(model), "--port", "0", "--scratch", str(scratch)]
    environment = {**os.environ, "EQUIPOISE_TOKEN": "secret"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        address = re.fullmatch(r"equipoise: (http://127\.0\.0\.1:\d+/)\n", process.stdout.readline())
        assert address is not None
        with urllib.request.urlopen(f"{address[1]}health") as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address[1]}api/model")
        with ThreadPoolExecutor(1) as threads:
            clip = write_clip(tmp_path / "long.wav", audio=voice(20.0), audio_codec="pcm_s16le")
            asked = threads.submit(
                httpx.post,
                f"{address[1]}api/clips?wait=60",
                headers={"Authorization": "Bearer secret"},
                files={"clip": clip.read_bytes()},
                timeout=60,
            )
            while not list(scratch.rglob("upload*")):  # it is being decoded
                assert not asked.done()
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=60)[1]
            assert asked.result().status_code in (200, 202)  # the score, or how far it came
    assert process.returncode == 143
    assert "Traceback" not in said
    assert list(scratch.iterdir()) == []
