"""What recording gradients costs a training step.

    python -m benchmarks.tracing [--models LateFusion AGSSMoE] [--steps 30]

Each model is trained for one epoch of made-up utterances by the loop itself, with AGS as its balancer, and every part
of the recording is timed inside that same run, in CPU seconds of this process: so all shares are of one run, and what
else the machine does hits them alike. Directions are computed on one batch there, and charged as one batch for each
500, as the loop spends them (``direction_every``); all else is charged as it falls (``trace_every`` 10).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from equipoise import AGS
from equipoise.data import Dataset
from equipoise.data.synthetic import synthetic
from equipoise.models import MODELS
from equipoise.training import loop
from equipoise.training.config import TrainConfig
from equipoise.training.recorder import Recorder
from equipoise.training.tracing import Tracer

BATCH = 32
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mean 4": ("LateFusion", {"hidden": 4, "encoder": "mean"}),
    "GRU 64": ("LateFusion", {}),
    "Transformer 64": ("LateFusion", {"encoder": "transformer"}),
    "AGS-SMoE": ("AGSSMoE", {}),
    "MMAFNet": ("MMAFNet", {}),
    "MulT": ("MulT", {}),
}


def timed(owner: Any, name: str, spent: dict[str, float], key: str) -> None:
    """Have a function count its own CPU seconds."""
    inner: Callable[..., Any] = getattr(owner, name)

    def outer(*args: Any, **given: Any) -> Any:
        start = time.process_time()
        found = inner(*args, **given)
        spent[key] = spent.get(key, 0.0) + time.process_time() - start
        return found

    setattr(owner, name, outer)


def measure(data: Dataset, case: str, steps: int, spent: dict[str, float]) -> dict[str, float]:
    """CPU seconds of a step, of each part of the recording in it, and of a batch for directions."""
    name, arguments = CASES[case]
    torch.manual_seed(0)
    dims = {modality: info.dim for modality, info in data.manifest.modalities.items()}
    model: Any = MODELS[name](dims=dims, outputs=1, **arguments)
    started = [0.0, 0.0]

    def watch(step: int, of: int, row: object) -> None:
        if step == 2 and row is None:  # the first steps fill caches and the optimizer's state
            spent.clear()
            started[0] = time.process_time()
        if step == of and row is None:
            started[1] = time.process_time()

    with TemporaryDirectory() as folder:
        loop.fit(
            model,
            train=data.split("train"),
            valid=data.split("valid"),
            balancer=AGS(model.modalities()),
            epochs=1,
            batch_size=BATCH,
            checkpoint_every=0,
            direction_every=steps,
            run_dir=folder,
            progress=watch,
        )
    return {"step": (started[1] - started[0]) / (steps - 2)} | {
        key: value if key == "directions" else value / (steps - 2) for key, value in spent.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--steps", type=int, default=42)
    args = parser.parse_args()
    torch.set_num_threads(1)
    spent: dict[str, float] = {}
    for name in ("before", "after"):
        timed(Tracer, name, spent, "norms")
    for name in ("record", "flush"):
        timed(Recorder, name, spent, "rows")
    timed(loop, "direction_cosines", spent, "directions")
    every = TrainConfig().direction_every
    parts = ("norms", "rows")
    print(f"| model | ms a step | {' | '.join(parts)} | directions | all |\n|---|{'---:|' * (len(parts) + 3)}")
    with TemporaryDirectory() as folder:
        count = args.steps * BATCH
        data = synthetic(
            Path(folder) / "data",
            n=count + 2 * BATCH,
            splits=(count, BATCH, BATCH),
            dims={"text": 300, "audio": 74, "vision": 35},
            lengths=dict.fromkeys(("text", "audio", "vision"), (20, 50)),
        )
        for case in args.models:
            found = measure(data, case, args.steps, spent)
            shares = [found[part] / found["step"] for part in parts] + [found["directions"] / every / found["step"]]
            cells = " | ".join(f"{share:.2%}" for share in [*shares, sum(shares)])
            print(f"| {case} | {1000 * found['step']:.1f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
