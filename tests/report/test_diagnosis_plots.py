from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from equipoise.diagnostics.section import Curve, Curves, Panel, Picture, Point, Scatter, Section
from equipoise.report.diagnosis_plots import plot_sections

SECTIONS = [
    Section("Only a table", "", ("a",), (("1",),)),
    Section(
        "What each modality adds",
        "",
        ("modality",),
        (("audio",),),
        Picture("Loss of accuracy", (Point("audio", 0.5, 0.4, 0.6, "50.0"),), 0.0, "nothing", 100),
        (
            Curves("accuracy", "missing", (Curve("frames", ((0.0, 0.9), (0.5, 0.7)), "70 %"),), 0.1, "chance", 100),
            Scatter("Maps", (Panel("fused", ((0.0, 1.0), (1.0, 0.0)), (0, 1), "90 %"),) * 5, ("yes", "no")),
        ),
    ),
]


def test_each_picture_is_written_twice_with_its_words(tmp_path: Path) -> None:
    written = plot_sections(SECTIONS, tmp_path / "pictures")
    stem = "what-each-modality-adds"
    names = [f"{stem}{number}.{kind}" for number in ("", "-2", "-3") for kind in ("svg", "png")]
    assert [path.name for path in written] == names
    assert all(path.read_bytes()[1:4] == b"PNG" for path in written if path.suffix == ".png")
    words = ["".join(ElementTree.parse(path).getroot().itertext()) for path in written if path.suffix == ".svg"]
    assert all(word in words[0] for word in ("Loss of accuracy", "audio", "50.0", "nothing"))
    assert all(word in words[1] for word in ("missing", "frames", "chance"))
    assert words[2].count("90 %") == 5
    assert all(word in words[2] for word in ("fused", "yes", "no"))
    again = plot_sections(SECTIONS, tmp_path / "again")
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]
