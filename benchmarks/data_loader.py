"""Batches a second and peak memory of the loader against dataset size, beside a loader of the field's usual kind.

    python benchmarks/data_loader.py [--sizes 100 400 1600]    # MB of padded features; MOSI's 1284 samples are 258 MB

MOSI's unaligned shapes: text 50 x 768, audio 375 x 5, vision 500 x 20, batches of 32, the best of three epochs of a
train split of 60 %, each row in a process of its own. "pickle" reads the whole pickle for each of three splits and
builds a sample at a time in Python, collated by `torch.utils.data.DataLoader`, as the common framework does. "padded":
our loader on frames of the same shapes, "ragged" on sequences of a quarter of these lengths to the whole, as they are
before padding. Memory is the most that the process held, less what it held after its imports. The disk's cache is warm.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from equipoise.data import Loader, load, write_dataset

SHAPES = {"text": (50, 768), "audio": (375, 5), "vision": (500, 20)}
SAMPLE_BYTES = 4 * sum(steps * dim for steps, dim in SHAPES.values())
BATCH = 32
EPOCHS = 3


def frames(n: int, shape: tuple[int, int], *, ragged: bool) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    for _ in range(n):
        steps = int(random.integers(shape[0] // 4, shape[0] + 1)) if ragged else shape[0]
        yield random.standard_normal((steps, shape[1]), dtype=np.float32)


def split_names(n: int) -> list[str]:
    return ["train"] * (n * 6 // 10) + ["valid"] * (n // 10) + ["test"] * (n - n * 6 // 10 - n // 10)


def prepare(path: Path, kind: str, n: int) -> None:
    labels, splits = np.linspace(-3, 3, n), split_names(n)
    if kind != "pickle":
        modalities = {name: frames(n, shape, ragged=kind == "ragged") for name, shape in SHAPES.items()}
        ids = [str(row) for row in range(n)]
        write_dataset(
            path,
            name=kind,
            source=kind,
            task="regression",
            modalities=modalities,
            labels=labels,
            ids=ids,
            splits=splits,
        )
        return
    whole: dict[str, Any] = {}
    for split in ("train", "valid", "test"):
        rows = [row for row in range(n) if splits[row] == split]
        arrays = {name: np.stack([*frames(len(rows), shape, ragged=False)]) for name, shape in SHAPES.items()}
        whole[split] = {**arrays, "regression_labels": labels[rows], "id": [str(row) for row in rows]}
    with path.open("wb") as file:
        pickle.dump(whole, file, protocol=4)


class PickleDataset(TorchDataset[dict[str, Any]]):
    def __init__(self, path: Path, split: str) -> None:
        with path.open("rb") as file:
            data = pickle.load(file)[split]
        self.features = {name: data[name].astype(np.float32) for name in SHAPES}
        self.features["audio"][self.features["audio"] == -np.inf] = 0
        self.labels = data["regression_labels"].astype(np.float32)
        self.ids = data["id"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        sample = {name: torch.tensor(array[row]) for name, array in self.features.items()}
        return {**sample, "label": torch.tensor(self.labels[row]), "id": self.ids[row], "index": row}


def memory(field: str) -> float:
    found = re.search(rf"{field}:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def measure(path: Path, kind: str) -> dict[str, float]:
    torch.set_num_threads(1)
    at_start, started = memory("VmRSS"), time.perf_counter()
    epochs: list[Iterable[Any]]
    if kind == "pickle":
        splits = [PickleDataset(path, split) for split in ("train", "valid", "test")]
        epochs = [DataLoader(splits[0], batch_size=BATCH, shuffle=True)] * EPOCHS
    else:
        data = load(path)
        ours = [data.split(split) for split in ("train", "valid", "test")]
        epochs = [Loader(ours[0], BATCH, shuffle=True).epoch(epoch) for epoch in range(EPOCHS)]
    opened, rates = time.perf_counter() - started, []
    for batches in epochs:
        started = time.perf_counter()
        count = sum(1 for _ in batches)
        rates.append(count / (time.perf_counter() - started))
    return {"open": opened, "rate": max(rates), "peak": memory("VmHWM") - at_start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[100, 400, 1600], metavar="MB")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)  # one part, in a process of its own
    args = parser.parse_args()
    if args.step:
        what, path, rest = args.step
        if what == "prepare":
            prepare(Path(path), rest.split(":")[0], int(rest.split(":")[1]))
        else:
            print(json.dumps(measure(Path(path), rest)))
        return
    print(f"{'MB':>6} {'samples':>8} {'loader':>8} {'open s':>8} {'batches/s':>10} {'peak MB':>8}")
    for size in args.sizes:
        n = round(size * 1e6 / SAMPLE_BYTES)
        for kind in ("pickle", "padded", "ragged"):
            with tempfile.TemporaryDirectory() as folder:
                run = [sys.executable, __file__, "--step"]
                path = str(Path(folder) / "data")
                subprocess.run([*run, "prepare", path, f"{kind}:{n}"], check=True)
                output = subprocess.run(
                    [*run, "measure", path, kind], check=True, capture_output=True, text=True
                ).stdout
                row = json.loads(output)
            print(f"{size:6.0f} {n:8d} {kind:>8} {row['open']:8.2f} {row['rate']:10.0f} {row['peak']:8.0f}", flush=True)


if __name__ == "__main__":
    main()
