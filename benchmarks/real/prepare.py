"""Turn the four real data files into canonical datasets: ``python benchmarks/real/prepare.py SOURCE TO [NAME ...]``.

No figure in the docs is selected on test data, so every dataset gets a validation split that its source may lack; how
it was drawn stands in the manifest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import numpy.typing as npt

from equipoise.data import write_dataset

Array = npt.NDArray[Any]


def mosi(source: Path, to: Path) -> None:
    """CMU-MOSI: transcripts and one 73-d audio vector each, in the standard split (1284/229/686)."""
    data = np.load(source / "mosi_utt.npz")
    write_dataset(
        to,
        name="MOSI",
        source="mosi_utt.npz",
        task="regression",
        modalities={"audio": data["audio73"]},
        labels=data["label"],
        label_range=(-3.0, 3.0),
        scale="mosi",
        ids=data["id"].tolist(),
        splits=data["split_std"].tolist(),
        texts=[text.lower() for text in data["text"].tolist()],
        groups=data["video_id"].tolist(),
    )


def avletters(source: Path, to: Path, *, by_speaker: bool = False) -> None:
    """AVLetters: 26 letters; lips pooled to 300 values a frame, 26 MFCCs; one training clip a letter validates.

    By speaker, a clip's mean frame is taken off: still faces tell speakers apart and not letters. That was chosen with
    two of the training speakers, Anya and John, held out in turn (vision alone: .25 against .09 as it is).
    """
    data = np.load(source / "avletters.npz")
    held_out = ("Yi", "Verity", "Kate")
    test = np.isin(data["speaker"], held_out) if by_speaker else data["rep"] == 3
    splits = np.where(test, "test", "train").astype("<U5")
    rng = np.random.default_rng(0)
    for letter in range(26):
        splits[rng.choice(np.flatnonzero((data["label"] == letter) & ~test), 1, replace=False)] = "valid"
    video = data["video"].reshape(-1, 24, 15, 4, 20, 4).mean(axis=(3, 5), dtype=np.float32).reshape(-1, 24, 300)
    if by_speaker:
        video -= video.mean(axis=1, keepdims=True)
    write_dataset(
        to,
        name="AVLetters, held-out speakers" if by_speaker else "AVLetters, by repetition",
        source="avletters.npz",
        task="classification",
        modalities={"audio": data["audio"], "vision": video},
        labels=data["label"],
        classes=list(ascii_uppercase),
        ids=data["name"].tolist(),
        splits=splits.tolist(),
        speakers=data["speaker"].tolist(),
        extra={
            "test": f"speakers {', '.join(held_out)}" if by_speaker else "repetition 3",
            "valid": "1 a letter, seed 0",
        },
    )


def avmnist(source: Path, to: Path) -> None:
    """AV-MNIST, reduced: 10k + 10k images at 25 % PCA energy, paired by label with 3000 spoken digits."""
    data = np.load(source / "avmnist_parts.npz")
    rng = np.random.default_rng(0)
    train_images, test_images = data["img_train"].reshape(-1, 784) / 255.0, data["img_test"].reshape(-1, 784) / 255.0
    valid = np.zeros(len(train_images), dtype=bool)
    valid[rng.permutation(len(train_images))[:1000]] = True
    images = np.concatenate([train_images[~valid], train_images[valid], test_images])
    images = _keep_energy(images, fitted_on=train_images[~valid], energy=0.25)
    digits = np.concatenate([data["y_img_train"][~valid], data["y_img_train"][valid], data["y_img_test"]])
    splits = np.repeat(["train", "valid", "test"], [9000, 1000, len(test_images)])
    recordings = {"train": range(8, 50), "valid": range(5, 8), "test": range(5)}
    spoken, logmel = np.empty(len(digits), dtype=np.int64), data["logmel"]
    for split, numbers in recordings.items():
        for digit in range(10):
            rows = np.flatnonzero((splits == split) & (digits == digit))
            sounds = np.flatnonzero(np.isin(data["rec"], list(numbers)) & (data["y_audio"] == digit))
            spoken[rows] = rng.choice(sounds, len(rows))
    write_dataset(
        to,
        name="AV-MNIST (reduced)",
        source="avmnist_parts.npz",
        task="classification",
        modalities={
            "audio": (logmel[i].reshape(1, -1).astype(np.float32) for i in spoken),
            "vision": images[:, None].astype(np.float32),
        },
        labels=digits,
        classes=[str(digit) for digit in range(10)],
        ids=[f"{split}-{i}" for i, split in enumerate(splits)],
        splits=splits.tolist(),
        extra={"images": "25 % PCA energy, fitted on training images", "valid": "1000 images, recordings 5-7"},
    )


def pom(source: Path, to: Path) -> None:
    """POM: 17 traits of a speaker from 20 word-aligned steps of audio and video (600/100/203)."""
    data = np.load(source / "pom.npz")
    names = ["train", "valid", "test"]
    counts = [len(data[f"y_{name}"]) for name in names]

    def rows(kind: str) -> Iterator[Array]:
        for name in names:
            # 486 speakers have no video at all: a sample of zeros lacks the modality.
            yield from (frames if frames.any() else frames[:0] for frames in data[f"{kind}_{name}"])

    write_dataset(
        to,
        name="POM",
        source="pom.npz",
        task="regression",
        modalities={"audio": rows("audio"), "vision": rows("video")},
        labels=np.concatenate([data[f"y_{name}"] for name in names]),
        label_range=(0.0, 7.0),
        ids=[f"{name}-{i}" for name, count in zip(names, counts, strict=True) for i in range(count)],
        splits=np.repeat(names, counts).tolist(),
    )


def _keep_energy(images: Array, *, fitted_on: Array, energy: float) -> Array:
    """Images rebuilt from the leading principal components that hold a share of the energy."""
    mean = fitted_on.mean(axis=0)
    _, singular, axes = np.linalg.svd(fitted_on - mean, full_matrices=False)
    held = np.cumsum(singular**2) / np.sum(singular**2)
    axes = axes[: int(np.searchsorted(held, energy)) + 1]
    rebuilt: Array = (images - mean) @ axes.T @ axes + mean
    return rebuilt


DATASETS: dict[str, Callable[[Path, Path], None]] = {
    "mosi": mosi,
    "avletters": avletters,
    "avletters-speakers": lambda source, to: avletters(source, to, by_speaker=True),
    "avmnist": avmnist,
    "pom": pom,
}


def prepare(datasets: Mapping[str, Callable[[Path, Path], None]], description: str | None) -> None:
    """The command line: make the datasets named, or all."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with mosi_utt.npz, avletters.npz, avmnist_parts.npz, pom.npz")
    parser.add_argument("to", type=Path, help="folder for the datasets")
    about = f"which of {', '.join(datasets)} (default: all)"
    parser.add_argument("names", nargs="*", choices=[*datasets, []], metavar="NAME", help=about)
    args = parser.parse_args()
    for name in args.names or datasets:
        datasets[name](args.source, args.to / name)
        print(f"{name}: {args.to / name}")


if __name__ == "__main__":
    prepare(DATASETS, __doc__)
