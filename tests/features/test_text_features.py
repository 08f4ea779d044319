from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.layers.tiny_bert import save_tiny_bert

from equipoise.features.text import cache_key, encode_frozen, tokenize
from equipoise.layers import TextEncoder

TEXTS = ["a good film", "bad", "", "not very good films a a a a a a a a", "very very unknown"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


def test_token_ids_by_hand(folder: Path) -> None:
    ids = list(tokenize(TEXTS, folder, 8))
    assert [row.tolist() for row in ids] == [
        [2, 5, 6, 8, 3],
        [2, 7, 3],
        [2, 3],
        [2, 9, 11, 6, 8, 10, 5, 3],  # cut, and still closed by [SEP]
        [2, 11, 11, 1, 3],
    ]
    assert {row.dtype for row in ids} == {np.dtype(np.int32)}


def test_texts_are_read_as_they_come(folder: Path) -> None:
    read = []

    def endless() -> Iterator[str]:
        while True:
            read.append(1)
            yield "a good film"

    assert next(tokenize(endless(), folder, 8)).tolist() == [2, 5, 6, 8, 3]
    assert len(read) < 5000
    vectors = encode_frozen(endless(), folder, max_tokens=8, batch_size=2)
    assert next(vectors).shape == (5, 8)


@pytest.mark.parametrize("max_tokens", [2, 25])
def test_a_length_that_the_model_cannot_read_is_refused(folder: Path, max_tokens: int) -> None:
    with pytest.raises(ValueError, match=rf"`max_tokens` should be in 3 to 24 .* Found `max_tokens = {max_tokens}`"):
        tokenize(TEXTS, folder, max_tokens)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_vectors_come_in_order_and_depend_on_their_text_alone(folder: Path, batch_size: int) -> None:
    texts = TEXTS * 30 if batch_size == 2 else TEXTS  # more than a window of two
    got = list(encode_frozen(texts, folder, max_tokens=10, batch_size=batch_size))
    assert len(got) == len(texts)
    encoder = TextEncoder(folder).eval()
    for text, vectors in zip(texts, got, strict=True):
        (ids,) = tokenize([text], folder, 10)
        tokens = torch.from_numpy(ids.astype(np.int64)).unsqueeze(0)
        with torch.no_grad():
            expected = encoder(tokens, torch.ones_like(tokens, dtype=torch.bool))[0].numpy()
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_pooled_is_the_mean_of_the_tokens(folder: Path) -> None:
    frames = encode_frozen(TEXTS, folder, max_tokens=10, batch_size=2)
    pooled = encode_frozen(TEXTS, folder, max_tokens=10, batch_size=2, pooled=True)
    for sequence, vector in zip(frames, pooled, strict=True):
        assert vector.shape == (1, 8)
        np.testing.assert_allclose(vector[0], sequence.mean(axis=0), atol=1e-6)


def test_no_texts_give_nothing(folder: Path) -> None:
    assert list(encode_frozen([], folder, max_tokens=10, batch_size=4)) == []


def test_a_batch_of_none_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"`batch_size` should be positive. Found `batch_size = 0`"):
        encode_frozen(TEXTS, folder, max_tokens=10, batch_size=0)


def test_a_model_without_tokenizer_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*token*", "vocab*", "special*"))
    with pytest.raises(ValueError, match=r"should hold a tokenizer .*. Found none") as error:
        tokenize(TEXTS, bare, 10)
    assert "\n" not in str(error.value)


def test_the_cache_key_follows_content_and_not_place(folder: Path, tmp_path: Path) -> None:
    key = cache_key(folder, {"max_tokens": 10, "pooled": False})
    assert len(key) == 64
    assert cache_key(folder, {"pooled": False, "max_tokens": 10}) == key
    assert cache_key(folder, {"pooled": True, "max_tokens": 10}) != key
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert cache_key(moved, {"max_tokens": 10, "pooled": False}) == key
    vocabulary = json.loads((moved / "tokenizer.json").read_text())
    vocabulary["model"]["vocab"]["##s"] = 99
    (moved / "tokenizer.json").write_text(json.dumps(vocabulary))
    assert cache_key(moved, {"max_tokens": 10, "pooled": False}) != key
    weights = shutil.copytree(folder, tmp_path / "weights") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    assert cache_key(weights.parent, {"max_tokens": 10, "pooled": False}) != key
