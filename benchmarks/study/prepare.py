"""The five datasets of the study, small enough that thousands of trainings fit into hours.

    python -m benchmarks.study.prepare SOURCE runs/study-data

SOURCE holds ``mosi_utt.npz``, ``avletters.npz``, ``avmnist_parts.npz`` and ``pom.npz``. What was made smaller stands in
each manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase

import numpy as np
from benchmarks.real.prepare import Array, avmnist, pom, prepare

from equipoise.data import load, synthetic, write_dataset
from equipoise.features.text import encode_frozen

VALID_CLIPS = 4  # a letter: settings are chosen on them
SIZES = {"train": 3000, "valid": 500, "test": 2000}  # of AV-MNIST


def mosi(source: Path, to: Path) -> None:
    """CMU-MOSI in the standard split: each transcript is the mean of frozen MiniLM's vectors."""
    data = np.load(source / "mosi_utt.npz")
    texts = [text.lower() for text in data["text"].tolist()]
    write_dataset(
        to,
        name="MOSI",
        source="mosi_utt.npz",
        task="regression",
        modalities={
            "text": encode_frozen(texts, "minilm", max_tokens=64, batch_size=64, pooled=True),
            "audio": data["audio73"],
        },
        labels=data["label"],
        label_range=(-3.0, 3.0),
        scale="mosi",
        ids=data["id"].tolist(),
        splits=data["split_std"].tolist(),
        groups=data["video_id"].tolist(),
        extra={"text": "mean of MiniLM's vectors, frozen"},
    )


def avletters(source: Path, to: Path) -> None:
    """AVLetters by repetition: two frames as one (12 of them), lips pooled to 300 values a frame."""
    data = np.load(source / "avletters.npz")
    test = data["rep"] == 3
    splits = np.where(test, "test", "train").astype("<U5")
    rng = np.random.default_rng(0)
    for letter in range(26):
        rows = np.flatnonzero((data["label"] == letter) & ~test)
        splits[rng.choice(rows, VALID_CLIPS, replace=False)] = "valid"
    video = data["video"].reshape(-1, 24, 15, 4, 20, 4).mean(axis=(3, 5), dtype=np.float32)
    write_dataset(
        to,
        name="AVLetters, by repetition",
        source="avletters.npz",
        task="classification",
        modalities={"audio": data["audio"].reshape(-1, 12, 52), "vision": video.reshape(-1, 12, 600)},
        labels=data["label"],
        classes=list(ascii_uppercase),
        ids=data["name"].tolist(),
        splits=splits.tolist(),
        speakers=data["speaker"].tolist(),
        extra={"test": "repetition 3", "valid": f"{VALID_CLIPS} a letter, seed 0", "frames": "two as one"},
    )


def small_avmnist(source: Path, to: Path) -> None:
    """The first 3000, 500 and 2000 samples of the reduced AV-MNIST."""
    whole = to.with_name(f"{to.name}-whole")
    if not whole.exists():
        avmnist(source, whole)
    data = load(whole)
    splits = {name: data.split(name) for name in SIZES}

    def rows(modality: str) -> Iterator[Array]:
        for name, count in SIZES.items():
            yield from splits[name].batch(range(count), [modality]).inputs[modality].numpy()

    write_dataset(
        to,
        name="AV-MNIST (reduced, 3000)",
        source="avmnist_parts.npz",
        task="classification",
        modalities={modality: rows(modality) for modality in ("audio", "vision")},
        labels=np.concatenate([splits[name].targets[:count] for name, count in SIZES.items()]),
        classes=[str(digit) for digit in range(10)],
        ids=[f"{name}-{i}" for name, count in SIZES.items() for i in range(count)],
        splits=[name for name, count in SIZES.items() for _ in range(count)],
        extra={"images": "25 % PCA energy", "samples": "the first 3000, 500 and 2000 of the reduced set"},
    )


def generated(source: Path, to: Path) -> None:
    """The built-in generator's utterances: text is fast, audio and vision starve beside it."""
    synthetic(to, n=2000, task="classification", seed=0)


DATASETS = {"mosi": mosi, "avletters": avletters, "avmnist": small_avmnist, "pom": pom, "generated": generated}


if __name__ == "__main__":
    prepare(DATASETS, __doc__)
