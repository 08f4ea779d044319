"""The papers' datasets from outside: widths, lengths, splits, labels; and generated data of such a shape."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike

from equipoise.data.dataset import Dataset
from equipoise.data.errors import DataError
from equipoise.data.manifest import Scale
from equipoise.data.synthetic import synthetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A dataset seen from outside.

    Attributes:
        dims: features a frame, by modality.
        steps: least and greatest number of frames, by modality, as the papers cut them.
        splits: samples in train, valid and test.
        classes: number of classes; None for regression.
        scale: of regression labels.
        text: whether it has transcripts.
        aligned: whether all modalities of a sample have the same frames.
        images: ``{m: (channels, height, width)}``, where a frame is an image laid out flat.
        source: where it comes from and in which form.
        doubt: what of the above is not from a paper, or differs between two.
    """

    dims: Mapping[str, int]
    steps: Mapping[str, tuple[int, int]]
    splits: tuple[int, int, int]
    source: str
    classes: int | None = None
    scale: Scale = "mosi"
    text: bool = False
    aligned: bool = False
    images: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    doubt: str = ""


MOSI, MOSEI, SIMS = (1284, 229, 686), (16326, 1871, 4659), (1368, 456, 457)
COMMON = "the field's common pickle"

SHAPES: dict[str, Shape] = {
    "mosi": Shape(
        dims={"text": 768, "audio": 74, "vision": 47},
        steps={"text": (1, 60), "audio": (1, 60), "vision": (1, 60)},
        splits=MOSI,
        text=True,
        aligned=True,
        source="CMU-MOSI, mosi.pkl of MAG and GLoMo: words, COVAREP, Facet; text is BERT's 768",
        doubt="MMAFNet prints 35 for Facet here too",
    ),
    "mosi-aligned": Shape(
        dims={"text": 768, "audio": 5, "vision": 20},
        steps={"text": (1, 50), "audio": (1, 50), "vision": (1, 50)},
        splits=MOSI,
        text=True,
        aligned=True,
        source=f"CMU-MOSI, aligned_50.pkl, {COMMON}",
    ),
    "mosi-unaligned": Shape(
        dims={"text": 768, "audio": 5, "vision": 20},
        steps={"text": (1, 50), "audio": (1, 375), "vision": (1, 500)},
        splits=MOSI,
        text=True,
        source=f"CMU-MOSI, unaligned_50.pkl, {COMMON}",
        doubt="the framework it comes from lists 500 steps of audio and 375 of vision",
    ),
    "mosi-text-audio": Shape(
        dims={"text": 768, "audio": 73},
        steps={"text": (1, 60), "audio": (1, 1)},
        splits=MOSI,
        text=True,
        source="CMU-MOSI as benchmarks/real/prepare.py writes it: words, one vector of sound; text is BERT's 768",
    ),
    "mosei": Shape(
        dims={"text": 768, "audio": 74, "vision": 35},
        steps={"text": (1, 80), "audio": (1, 80), "vision": (1, 80)},
        splits=MOSEI,
        text=True,
        aligned=True,
        source="CMU-MOSEI, aligned: words, COVAREP, Facet; text is BERT's 768",
    ),
    "mosei-unaligned": Shape(
        dims={"text": 768, "audio": 74, "vision": 35},
        steps={"text": (1, 50), "audio": (1, 500), "vision": (1, 375)},
        splits=MOSEI,
        text=True,
        source=f"CMU-MOSEI, unaligned_50.pkl, {COMMON}",
    ),
    "mosei-binary": Shape(
        dims={"text": 300, "audio": 80},
        steps={"text": (1, 60), "audio": (1, 60)},
        splits=MOSEI,
        classes=2,
        source="CMU-MOSEI as TBJE reads it: GloVe vectors, mel bands, two classes of sentiment",
        doubt="splits are those of the other papers; AGM gives none",
    ),
    "ch-sims": Shape(
        dims={"text": 768, "audio": 33, "vision": 709},
        steps={"text": (1, 39), "audio": (1, 400), "vision": (1, 55)},
        splits=SIMS,
        scale="sims",
        text=True,
        source=f"CH-SIMS, unaligned_39.pkl, {COMMON}",
    ),
    "ur-funny": Shape(
        dims={"text": 768, "audio": 81, "vision": 91},
        steps={"text": (1, 80), "audio": (1, 80), "vision": (1, 80)},
        splits=(7614, 980, 994),
        classes=2,
        text=True,
        aligned=True,
        source="UR-FUNNY, ur_funny.pkl of HKT and GLoMo: words with context, COVAREP, OpenFace",
        doubt="splits as AGS-SMoE gives them for version 2; GLoMo gives none",
    ),
    "ur-funny-v2": Shape(
        dims={"text": 300, "audio": 81, "vision": 371},
        steps={"text": (1, 50), "audio": (1, 50), "vision": (1, 50)},
        splits=(7614, 980, 994),
        classes=2,
        text=True,
        aligned=True,
        source="UR-FUNNY version 2 as released: GloVe vectors, COVAREP, OpenFace, words",
        doubt="AGM's code has these widths, but does not name the version",
    ),
    "mustard": Shape(
        dims={"text": 768, "audio": 81, "vision": 91},
        steps={"text": (1, 70), "audio": (1, 70), "vision": (1, 70)},
        splits=(552, 69, 69),
        classes=2,
        text=True,
        aligned=True,
        source="MUStARD, mustard.pkl of HKT and GLoMo: words with context, COVAREP, OpenFace",
        doubt="690 utterances are published; their shares of 80, 10 and 10 % are taken here",
    ),
    "cherma": Shape(
        dims={"text": 1024, "audio": 1024, "vision": 2048},
        steps={"text": (1, 50), "audio": (1, 50), "vision": (1, 50)},
        splits=(17230, 5743, 5744),
        classes=7,
        source="CHERMA, features of the LFMIM repository",
        doubt="28717 utterances, 6:2:2, at second hand; the paper's BERT-base has 768 features, not 1024",
    ),
    "crema-d": Shape(
        dims={"audio": 48316, "vision": 150528},
        images={"audio": (1, 257, 188), "vision": (3, 224, 224)},
        steps={"audio": (1, 1), "vision": (1, 1)},
        splits=(6028, 670, 744),
        classes=6,
        source="CREMA-D, 6698/744 clips as OGM-GE split them: log-spectrogram of 3 s, one picture",
        doubt="validation is the tenth of training that AGM's code sets aside; it scores nine tenths of test",
    ),
    "kinetics-sounds": Shape(
        dims={"audio": 48316, "vision": 150528},
        images={"audio": (1, 257, 188), "vision": (3, 224, 224)},
        steps={"audio": (1, 1), "vision": (3, 3)},
        splits=(15000, 1900, 1900),
        classes=31,
        source="Kinetics-Sounds: log-spectrogram of 3 s, three pictures",
        doubt="from code of others for this dataset; AGM's supplement was not at hand. Splits are round numbers",
    ),
    "av-mnist": Shape(
        dims={"audio": 12544, "vision": 784},
        images={"audio": (1, 112, 112), "vision": (1, 28, 28)},
        steps={"audio": (1, 1), "vision": (1, 1)},
        splits=(54000, 6000, 10000),
        classes=10,
        source="AV-MNIST: spectrogram of a spoken digit, digit with 25 % of its energy",
        doubt="validation is the tenth of training that AGM's code sets aside; it scores nine tenths of test",
    ),
    "av-mnist-reduced": Shape(
        dims={"audio": 1984, "vision": 784},
        images={"audio": (1, 32, 62), "vision": (1, 28, 28)},
        steps={"audio": (1, 1), "vision": (1, 1)},
        splits=(9000, 1000, 10000),
        classes=10,
        source="AV-MNIST as benchmarks/real/prepare.py pairs it: 20000 images, 3000 spoken digits of 32 × 62 log-mel",
        doubt="a counterpart of the published set, not that set",
    ),
    "ave": Shape(
        dims={"audio": 128, "vision": 25088},
        steps={"audio": (10, 10), "vision": (10, 10)},
        splits=(3339, 402, 402),
        classes=28,
        source="AVE: VGGish features and a 7 × 7 map of 512 VGG-19 features, laid out flat, of each of ten seconds",
        doubt="a label a clip; the papers' labels of each second (28 events and background) are no label of a sample",
    ),
    "avletters": Shape(
        dims={"audio": 26, "vision": 300},
        steps={"audio": (24, 24), "vision": (24, 24)},
        splits=(494, 26, 260),
        classes=26,
        source="AVLetters as benchmarks/real/prepare.py writes it: MFCC, lips pooled to 15 × 20",
    ),
}
"""By name."""


def generate(
    path: str | PathLike[str],
    shape: str,
    *,
    scale: float = 1.0,
    splits: tuple[int, int, int] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Dataset:
    """Write generated utterances of a dataset's exact shape, so that a run for it can be tried without it.

    Args:
        path: the directory to make.
        shape: a name of `SHAPES`.
        scale: share of each split's samples, in (0, 1]; at least one is left. Nothing else shrinks.
        splits: samples in train, valid and test, instead of shares.
        seed: equal seeds give equal bytes.
        overwrite: replace a dataset that is there.

    Returns:
        The dataset; it says that it is synthetic wherever it is shown.

    Raises:
        DataError: an unknown shape, a scale out of its range, or a path that exists.
    """
    if shape not in SHAPES:
        near = difflib.get_close_matches(shape.lower(), SHAPES, n=1, cutoff=0.5)
        meant = f" Did you mean `{near[0]}`?" if near else ""
        raise DataError(f"Unknown shape `{shape}`.{meant} Valid: {', '.join(SHAPES)}.")
    if not 0 < scale <= 1:
        raise DataError(f"Parameter `scale` should be above 0 and at most 1. Found `scale = {scale}`.")
    found = SHAPES[shape]
    train, valid, test = splits or (max(1, round(count * scale)) for count in found.splits)
    return synthetic(
        path,
        splits=(train, valid, test),
        seed=seed,
        modalities=tuple(found.dims),
        task="regression" if found.classes is None else "classification",
        scale=found.scale,
        dims=found.dims,
        lengths=found.steps,
        aligned=found.aligned,
        classes=found.classes or 2,
        text=found.text,
        dataset_name=f"{shape}, generated",
        overwrite=overwrite,
    )
