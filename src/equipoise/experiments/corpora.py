"""The datasets of the papers' tables: what a user has to fetch, from whom, and how it becomes a dataset here."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.data.checksums import KNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A dataset that no package may ship.

    Attributes:
        shape: a name of `equipoise.data.shapes.SHAPES`, for generated data.
        files: what to get.
        source: from whom.
        steps: what makes the dataset directory of it; ``DIR`` stands for the value of ``--data``.
        published: ``(corpus, file)`` of `equipoise.data.checksums.KNOWN`, where a checksum is published.
        doubt: what is not certain, or not known.
    """

    shape: str
    files: str
    source: str
    steps: str
    published: tuple[str, str] | None = None
    doubt: str = ""

    @property
    def checksum(self) -> str | None:
        """The SHA-256 that the file must have; None where none is published."""
        return next((digest for digest, known in KNOWN.items() if known == self.published), None)


_IMPORT = "equipoise data import {file} --to DIR/{name}"
_UNHASHED = "no checksum of this file is published: `equipoise data import` prints yours, keep it with your figures"

CORPORA: dict[str, Corpus] = {
    "mosi": Corpus(
        shape="mosi",
        files="mosi.pkl (words, COVAREP 74, Facet 47), as MAG-BERT and GLoMo read it",
        source="WasifurRahman/BERT_multimodal_transformer on GitHub; corpus by CMU MultiComp, research use",
        steps=_IMPORT.format(file="mosi.pkl", name="mosi"),
        doubt=_UNHASHED,
    ),
    "mosi-aligned": Corpus(
        shape="mosi-aligned",
        files="aligned_50.pkl of MOSI, the field's common pickle",
        source="the MMSA project on GitHub (thuiar/MMSA); corpus by CMU MultiComp, research use",
        steps=_IMPORT.format(file="aligned_50.pkl", name="mosi-aligned"),
        published=("MOSI", "aligned_50"),
    ),
    "mosei": Corpus(
        shape="mosei",
        files="mosei.pkl (words, COVAREP 74, Facet 35), as MAG-BERT and GLoMo read it",
        source="WasifurRahman/BERT_multimodal_transformer on GitHub; corpus by CMU MultiComp, research use",
        steps=_IMPORT.format(file="mosei.pkl", name="mosei"),
        doubt=_UNHASHED,
    ),
    "mosei-binary": Corpus(
        shape="mosei-binary",
        files="CMU-MOSEI as TBJE reads it: GloVe vectors of words, 80 mel bands, two classes of sentiment",
        source="the TBJE repository on GitHub (jbdel/MOSEI_UMONS); corpus by CMU MultiComp, research use",
        steps="write its arrays into an .npz (keys text, audio, label, split), then "
        + _IMPORT.format(file="mosei_tbje.npz", name="mosei-binary"),
        doubt=_UNHASHED,
    ),
    "ch-sims": Corpus(
        shape="ch-sims",
        files="unaligned_39.pkl of CH-SIMS, the field's common pickle",
        source="the MMSA project on GitHub (thuiar/MMSA), research use",
        steps=_IMPORT.format(file="unaligned_39.pkl", name="ch-sims"),
        published=("CH-SIMS", "unaligned_39"),
    ),
    "ur-funny": Corpus(
        shape="ur-funny",
        files="ur_funny.pkl of HKT and GLoMo",
        source="the HKT repository on GitHub (matalvepu/HKT); corpus by the University of Rochester",
        steps=_IMPORT.format(file="ur_funny.pkl", name="ur-funny"),
        doubt=_UNHASHED,
    ),
    "ur-funny-v2": Corpus(
        shape="ur-funny-v2",
        files="the folder of pickles of UR-FUNNY version 2, with word_embedding_list.pkl",
        source="the UR-FUNNY repository on GitHub (ROC-HCI/UR-FUNNY)",
        steps=_IMPORT.format(file="UR-FUNNY-V2", name="ur-funny-v2"),
        doubt=_UNHASHED,
    ),
    "mustard": Corpus(
        shape="mustard",
        files="mustard.pkl of HKT and GLoMo",
        source="the HKT repository on GitHub (matalvepu/HKT); corpus by Castro et al. (2019)",
        steps=_IMPORT.format(file="mustard.pkl", name="mustard"),
        doubt=_UNHASHED,
    ),
    "cherma": Corpus(
        shape="cherma",
        files="the CHERMA folder of features, as the LFMIM repository reads it",
        source="the authors of CHERMA (Sun et al., ACL 2023), sunjunaimer/LFMIM on GitHub",
        steps=_IMPORT.format(file="CHERMA", name="cherma"),
        doubt=_UNHASHED,
    ),
    "crema-d": Corpus(
        shape="crema-d",
        files="CREMA-D: 7442 clips; of each a log-spectrogram of 3 s (257 × 188) and one picture (3 × 224 × 224)",
        source="the CREMA-D repository on GitHub (CheyneyComputerScience/CREMA-D), Open Database License",
        steps="write a CSV with paths of your .npy files, label, and the split of OGM-GE (6698 train, 744 test), then "
        + _IMPORT.format(file="crema-d.csv", name="crema-d-all")
        + " && equipoise data split DIR/crema-d-all --to DIR/crema-d --by none --keep-test",
        doubt="spectrograms and pictures are your own extraction, so no checksum can be",
    ),
    "av-mnist": Corpus(
        shape="av-mnist",
        files="AV-MNIST: 70000 pairs of a spectrogram (112 × 112) and a digit with 25 % of its energy",
        source="the authors of CentralNet (Vielzeuf et al., 2018)",
        steps="write its arrays into an .npz (keys audio, vision, label, split), then "
        + _IMPORT.format(file="avmnist.npz", name="av-mnist"),
        doubt=_UNHASHED,
    ),
    "av-mnist-reduced": Corpus(
        shape="av-mnist-reduced",
        files="avmnist_parts.npz: 20000 images of MNIST and 3000 spoken digits, to be paired by label",
        source="MNIST and the Free Spoken Digit Dataset, CC BY-SA",
        steps="python benchmarks/real/prepare.py SOURCE DIR avmnist && mv DIR/avmnist DIR/av-mnist-reduced",
        doubt="a counterpart, not the published set: fewer pairs, smaller spectrograms; no checksum is published",
    ),
    "avletters": Corpus(
        shape="avletters",
        files="avletters.npz: 780 clips of 10 people saying A to Z three times",
        source="AVLetters (Matthews et al.), University of East Anglia, research use",
        steps="python benchmarks/real/prepare.py SOURCE DIR avletters",
        doubt="no checksum is published",
    ),
    "ave": Corpus(
        shape="ave",
        files="AVE: VGGish features (10 × 128) and VGG-19 maps (10 × 7 × 7 × 512) of 4143 clips",
        source="the AVE-ECCV18 repository on GitHub (YapengTian/AVE-ECCV18)",
        steps="write its arrays into an .npz (keys audio, vision, label: one event a clip, split), then "
        + _IMPORT.format(file="ave.npz", name="ave"),
        doubt=_UNHASHED,
    ),
}
"""By name; the dataset is looked for in ``DIR/NAME``, or in ``DIR`` itself where it is a dataset."""


def instructions(name: str) -> str:
    """What to get, from whom, what to do with it, and which checksum it must have, in a few lines."""
    corpus = CORPORA[name]
    lines = [f"{name}: {corpus.files}", f"  from: {corpus.source}", f"  then: {corpus.steps}"]
    if corpus.checksum is not None:
        lines.append(f"  SHA-256: {corpus.checksum}")
    return "\n".join([*lines, *([f"  mind: {corpus.doubt}"] if corpus.doubt else [])])
