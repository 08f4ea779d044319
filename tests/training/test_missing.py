from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from equipoise.data import write_dataset
from equipoise.training.config import make_config
from equipoise.training.run import run

LACKS = {"test 1": "audio", "test 2": "text", "test 4": "audio"}


def test_what_a_sample_lacks_stands_beside_its_prediction(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ids = [f"{split} {i}" for split in ("train", "valid", "test") for i in range(6)]
    frames = {
        name: [random.standard_normal((0 if LACKS.get(i) == name else 3, 4), dtype=np.float32) for i in ids]
        for name in ("text", "audio")
    }
    write_dataset(
        tmp_path / "data",
        name="some lack some",
        source="this test",
        task="regression",
        modalities=frames,
        labels=random.uniform(-3, 3, len(ids)),
        ids=ids,
        splits=[i.split()[0] for i in ids],
    )
    model = {"name": "LateFusion", "encoder": "mean", "hidden": 4}
    run(make_config({"data": str(tmp_path / "data"), "model": model, "train": {"epochs": 1}}), tmp_path / "out")
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert {i: row["missing"] for i, row in rows.items() if row["missing"]} == LACKS
    assert all(row["prediction"] for row in rows.values())
