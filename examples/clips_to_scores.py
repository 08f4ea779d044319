"""From a folder of clips to scores of clips that the model has never seen: extract, train, export, score.

    python examples/clips_to_scores.py OUT

The clips are made here: a buzzing voice whose pitch rises with the label, and a sentence beside each that likes or
dislikes a film. That makes the scores easy to judge; they say nothing about real people.
"""

from __future__ import annotations

import csv
import sys
import wave
from pathlib import Path

import numpy as np

from equipoise.extraction.choose import choose_recipe
from equipoise.extraction.clip_features import extract_clip
from equipoise.extraction.dataset import extract_dataset
from equipoise.extraction.labels import read_labels
from equipoise.report.export import export_run
from equipoise.scoring.result import ClipScore
from equipoise.scoring.score import Scorer
from equipoise.training.config import make_config
from equipoise.training.run import run

RATE = 16_000
LIKES = ("very good", "a good film", "good")
DISLIKES = ("very bad", "a bad film", "not good")


def make_clip(path: Path, label: float, text: str, random: np.random.Generator) -> None:
    """A second of buzzing, 100 Hz to 220 Hz high, in noise; the sentence in a file beside it."""
    pitch = 160 + 20 * label + random.normal(0, 8)
    seconds = np.arange(round(random.uniform(0.8, 1.2) * RATE)) / RATE
    buzz = 0.2 * np.sign(np.sin(2 * np.pi * pitch * seconds)) + random.normal(0, 0.02, len(seconds))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((buzz.clip(-1, 1) * 32767).astype("<i2").tobytes())
    path.with_suffix(".txt").write_text(text)


def make_clips(folder: Path, count: int, seed: int = 0) -> Path:
    """A folder of clips and their labels from -3 to 3; the folder ``new`` has one that likes and one that dislikes."""
    random = np.random.default_rng(seed)
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    (folder / "new").mkdir(exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "split"])
        for i in range(count):
            label = random.uniform(-3, 3)
            text = str(random.choice(LIKES if label > 0 else DISLIKES))
            make_clip(folder / "clips" / f"{i}.wav", label, text, random)
            rows.writerow([f"{i}.wav", f"{label:.2f}", ("train", "train", "valid", "test")[i % 4]])
    make_clip(folder / "new" / "liked.wav", 2.5, "a good film", random)
    make_clip(folder / "new" / "disliked.wav", -2.5, "very bad", random)
    return folder / "labels.csv"


def main(out: Path, *, count: int = 80, epochs: int = 15, encoder: str = "minilm", jobs: int = 2) -> list[ClipScore]:
    """The whole chain; the scores of the two new clips."""
    labels = read_labels(make_clips(out, count), out / "clips", label_range=(-3, 3))
    recipe = choose_recipe(audio="log-mel", vision=None, arguments={"audio": {"bins": 40}})
    extract_dataset(labels, out / "data", recipe, jobs=jobs, overwrite=True)
    config = make_config({
        "data": str(out / "data"),
        "text": {"encoder": encoder, "mode": "frozen", "max_tokens": 16},
        "model": {"name": "LateFusion", "encoder": "gru", "hidden": 16},
        "balancer": "ags",
        "train": {"epochs": epochs, "batch_size": 8, "lr": 3e-3},
    })  # fmt: skip
    run(config, out / "run", resume=False)
    export_run(out / "run", out / "model", overwrite=True)

    scorer = Scorer(out / "model")
    new = [extract_clip(out / "new" / f"{name}.wav", scorer.recipe()) for name in ("liked", "disliked")]
    return scorer.score(new, level=0.8, words=True)


if __name__ == "__main__":
    for score in main(Path(sys.argv[1])):
        print(f"{score.id}: {score.values['score']:.2f}, interval {score.interval}")
        print("  adds:", {name: round(share["score"], 2) for name, share in score.contributions.items()})
        print("  words:", {word.text: round(word.weights["score"], 2) for word in score.words or ()})
