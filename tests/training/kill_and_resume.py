"""Run one config undisturbed, and the same one killed again and again; print what both left.

It forks, so that torch loads once, and kills a few random milliseconds after a random number of steps: where a kill
falls does not depend on how busy the machine is.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import accelerate.state  # type: ignore[import-untyped]  # noqa: F401 - loaded here, so that no child has to
import torch
from tensorboard.summary.writer import record_writer  # noqa: F401

from equipoise.training.config import RunConfig, make_config
from equipoise.training.run import run

torch.set_num_threads(1)


def start(config: RunConfig, out: Path, steps: int = 1) -> int:
    """A child process that runs the config; this returns when it has done some steps, or ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run(config, out, progress=lambda *_: os.write(writing, b"."))  # type: ignore[arg-type]
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    while steps and os.read(reading, 1):
        steps -= 1
    return child


def left_by(out: Path) -> dict[str, Any]:
    """What a run leaves behind, bit by bit; times aside."""
    files = ["metrics.csv", "steps.csv", "predictions.csv", "checkpoint/final/best.safetensors"]
    found: dict[str, Any] = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in files}
    test = json.loads((out / "test.json").read_text())
    return found | {"test": {key: value for key, value in test.items() if key != "seconds_per_epoch"}}


def main(config: RunConfig, folder: Path, kills: int, seed: int) -> None:
    calm, rough = folder / "calm", folder / "rough"
    child = start(config, calm)
    assert os.waitpid(child, 0)[1] == 0

    draw = random.Random(seed)
    killed: list[str] = []
    for _ in range(kills):
        child = start(config, rough, steps=draw.randint(2, 9))
        time.sleep(draw.uniform(0, 0.01))
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        names = sorted(path.name for path in (rough / "checkpoint").glob("[ef]*"))
        killed.append(names[-1] if names else "none")
    child = start(config, rough)
    assert os.waitpid(child, 0)[1] == 0
    print(json.dumps({"killed": killed, "calm": left_by(calm), "rough": left_by(rough)}))


if __name__ == "__main__":
    main(make_config(json.loads(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
