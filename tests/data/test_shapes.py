from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import pytest

from equipoise.data import DataError
from equipoise.data.shapes import SHAPES, generate

SMALL = 16 / 1284  # sixteen training samples of MOSI


@pytest.mark.parametrize("name", SHAPES)
def test_generated_data_have_the_shape(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    data = generate(tmp_path / "set", name, scale=4 / shape.splits[0])
    manifest = data.manifest
    assert manifest.synthetic
    assert {m: info.dim for m, info in manifest.modalities.items()} == shape.dims
    for m, (least, most) in shape.steps.items():
        assert least <= manifest.modalities[m].shortest <= manifest.modalities[m].longest <= most
    assert manifest.task == ("regression" if shape.classes is None else "classification")
    assert manifest.labels.outputs == (shape.classes or 1)
    assert manifest.labels.scale == (shape.scale if shape.classes is None else None)
    assert (data.texts is not None) == shape.text
    assert manifest.splits == {
        split: max(1, round(count * 4 / shape.splits[0]))
        for split, count in zip(("train", "valid", "test"), shape.splits, strict=True)
    }


def test_the_whole_of_a_small_one_has_every_sample_and_class(tmp_path: Path) -> None:
    data = generate(tmp_path / "set", "avletters")
    assert data.manifest.splits == {"train": 494, "valid": 26, "test": 260}
    assert set(np.asarray(data.labels)) == set(range(26))


def test_a_frame_that_is_an_image_is_as_wide_as_the_image() -> None:
    for shape in SHAPES.values():
        for name, image in shape.images.items():
            assert prod(image) == shape.dims[name]


def test_aligned_means_equal_lengths_and_labels_keep_their_scale(tmp_path: Path) -> None:
    aligned = generate(tmp_path / "a", "mosi", scale=SMALL)
    rows = np.arange(len(aligned))
    lengths = [aligned.ragged(m).lengths(rows) for m in ("text", "audio", "vision")]
    np.testing.assert_array_equal(lengths[0], lengths[1])
    np.testing.assert_array_equal(lengths[0], lengths[2])
    assert len(set(lengths[0])) > 1
    loose = generate(tmp_path / "b", "mosi-unaligned", scale=SMALL)
    assert (loose.ragged("audio").lengths(rows) != loose.ragged("text").lengths(rows)).any()
    sims = generate(tmp_path / "c", "ch-sims", scale=16 / 1368)
    assert sims.manifest.labels.range == (-1.0, 1.0)
    # The same latents: labels of one scale are a third of those of the other.
    np.testing.assert_allclose(np.asarray(sims.labels)[:16] * 3, np.asarray(aligned.labels)[:16], rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "scale", "message"),
    [
        ("mosy", 1.0, "Unknown shape `mosy`. Did you mean `mosi`?"),
        ("mosi", 0.0, "Parameter `scale` should be above 0 and at most 1. Found `scale = 0.0`."),
        ("mosi", 1.5, "Parameter `scale` should be above 0 and at most 1. Found `scale = 1.5`."),
        ("mosi", float("nan"), "Parameter `scale`"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(shape: str, scale: float, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        generate(tmp_path / "set", shape, scale=scale)
    assert str(error.value).startswith(message)
    assert not (tmp_path / "set").exists()
