"""One rank of a training with each balancer; prints the digest of its weights, and the first rank saves them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from equipoise.balancers import AGM, AGS, MSES, OGMGE
from equipoise.core import Balancer
from equipoise.data import load
from equipoise.models import LateFusion
from equipoise.training.loop import fit

torch.set_num_threads(1)
NAMES = ("plain", "ags", "ogm_ge", "agm", "mses", "dropping")


def balancer(name: str, model: LateFusion) -> Balancer | None:
    modalities = model.modalities()
    if name == "ags":
        return AGS(modalities, alpha=0.5)
    if name == "ogm_ge":
        return OGMGE(modalities, alpha=0.5)
    if name == "agm":
        return AGM(modalities, alpha=0.5)
    return MSES(modalities, patience=1) if name == "mses" else None


def train(data: Path, out: Path, name: str) -> LateFusion:
    dataset = load(data)
    torch.manual_seed(int(os.environ.get("RANK", "0")))  # ranks that start differently must not stay so
    dims = {modality: info.dim for modality, info in dataset.manifest.modalities.items()}
    model = LateFusion(dims=dims, hidden=4, encoder="gru", dropout=0.0)
    fit(
        model,
        train=dataset.split("train"),
        valid=dataset.split("valid"),
        balancer=balancer(name, model),
        epochs=2,
        batch_size=9,
        accumulate=2,
        optimizer="sgd",
        lr=0.05,
        clip=0.5,
        run_dir=out / name,
        drop_modalities=0.4 if name == "dropping" else 0.0,
        drop_frames={"audio": 0.5} if name == "dropping" else 0.0,
    )
    return model


def main(data: Path, out: Path) -> None:
    digests = {}
    for name in NAMES:
        state = train(data, out, name).state_dict()
        digests[name] = hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()
        if os.environ.get("RANK", "0") == "0":
            save_file(state, out / f"{name}.safetensors")
    print(json.dumps(digests))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
