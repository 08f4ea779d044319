"""Text to token ids, and to the vectors of a frozen encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from equipoise.layers import TextEncoder, find_text_model, weights_sha256

_CHUNK = 1024  # texts tokenized in one call
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
_WINDOW = 64  # batches sorted by length together, so that memory stays flat however many texts come


def tokenize(texts: Iterable[str], name_or_path: str | Path, max_tokens: int) -> Iterator[npt.NDArray[np.int32]]:
    """Token ids of each text with the model's own special tokens ([CLS] and [SEP]), cut to ``max_tokens``.

    Args:
        texts: any number of them; an empty one still has its special tokens.
        name_or_path: a text model as :class:`equipoise.layers.TextEncoder` takes it.
        max_tokens: the longest result, special tokens included.

    Yields:
        ``[T]`` int32, one a text, in order.

    Raises:
        FileNotFoundError: no such model.
        ValueError: ``max_tokens`` below 3 or above what the model can read, or a folder without a tokenizer.
    """
    return _tokenize(texts, _checked_tokenizer(name_or_path, max_tokens), max_tokens)


class TextReader:
    """Transcripts as a model reads them; tokenizer and encoder are loaded once and serve many calls.

    Args:
        name_or_path: a text model as :class:`equipoise.layers.TextEncoder` takes it.
        max_tokens: texts are cut to it, special tokens included.
        vectors: the vectors of the frozen encoder; else token ids.
        batch_size: texts encoded at once.

    Raises:
        FileNotFoundError: no such model.
        ValueError: what :func:`tokenize` refuses.
    """

    def __init__(self, name_or_path: str | Path, *, max_tokens: int, vectors: bool, batch_size: int = 32) -> None:
        self.max_tokens, self.batch_size = max_tokens, batch_size
        self._tokenizer = _checked_tokenizer(name_or_path, max_tokens)
        self._encoder = TextEncoder(name_or_path, trainable=False).eval() if vectors else None

    def __call__(self, texts: Iterable[str]) -> list[npt.NDArray[Any]]:
        """``[T]`` int32 token ids, or ``[T, d]`` float32, one a text, in order."""
        tokens = _tokenize(texts, self._tokenizer, self.max_tokens)
        if self._encoder is None:
            return list(tokens)
        return list(_encode(tokens, self._encoder, self.batch_size, False, torch.device("cpu")))

    def cut(self, text: str) -> bool:
        """Whether a text is longer than ``max_tokens``, so that its end is not read."""
        return len(self._tokenizer(text, return_attention_mask=False, verbose=False)["input_ids"]) > self.max_tokens


def _checked_tokenizer(name_or_path: str | Path, max_tokens: int) -> Any:
    tokenizer = _tokenizer(find_text_model(name_or_path))
    if not 3 <= max_tokens <= tokenizer.model_max_length:
        raise ValueError(
            f"Parameter `max_tokens` should be in 3 to {tokenizer.model_max_length} for {str(name_or_path)!r}. "
            f"Found `max_tokens = {max_tokens}`."
        )
    return tokenizer


def encode_frozen(
    texts: Iterable[str],
    name_or_path: str | Path,
    *,
    max_tokens: int,
    batch_size: int,
    pooled: bool = False,
    device: str | torch.device = "cpu",
) -> Iterator[npt.NDArray[np.float32]]:
    """The vectors that a frozen text encoder gives each text, in the order of the texts.

    Texts of like length are encoded together; a result depends on its own text alone, up to rounding.

    Args:
        texts: any number of them; some batches are held at a time.
        name_or_path: a text model as :class:`equipoise.layers.TextEncoder` takes it.
        max_tokens: texts are cut to it, special tokens included.
        batch_size: texts encoded at once.
        pooled: one vector a text, the mean over all its tokens, special tokens included.
        device: where to encode.

    Yields:
        ``[T, d]`` float32, or ``[1, d]`` if ``pooled``.

    Raises:
        FileNotFoundError: no such model.
        ValueError: ``batch_size`` below 1, or what :func:`tokenize` refuses.
    """
    if batch_size < 1:
        raise ValueError(f"Parameter `batch_size` should be positive. Found `batch_size = {batch_size}`.")
    tokens = tokenize(texts, name_or_path, max_tokens)
    encoder = TextEncoder(name_or_path, trainable=False).to(device)
    return _encode(tokens, encoder, batch_size, pooled, torch.device(device))


def cache_key(name_or_path: str | Path, settings: Mapping[str, Any]) -> str:
    """A name for features on disk: it changes with the weights, the tokenizer and the settings, not with the path.

    Args:
        name_or_path: a text model as :class:`equipoise.layers.TextEncoder` takes it.
        settings: whatever else the features depend on, as JSON can hold it; the order of keys does not matter.

    Returns:
        64 hexadecimal digits.
    """
    folder = find_text_model(name_or_path)
    digest = hashlib.sha256(weights_sha256(folder).encode())
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        path = folder / name
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    # Without its files AutoTokenizer builds a tokenizer of five special tokens, and says nothing.
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        raise ValueError(
            f"Parameter `name_or_path` should hold a tokenizer ({', '.join(_VOCABULARIES)}). Found none in {folder}."
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"The folder {folder} holds no tokenizer that Transformers can load: {reason}") from error


def _tokenize(texts: Iterable[str], tokenizer: Any, max_tokens: int) -> Iterator[npt.NDArray[np.int32]]:
    remaining = iter(texts)
    while chunk := list(islice(remaining, _CHUNK)):
        encoded = tokenizer(chunk, truncation=True, max_length=max_tokens, return_attention_mask=False)
        for ids in encoded["input_ids"]:
            yield np.asarray(ids, dtype=np.int32)


@torch.no_grad()
def _encode_batch(
    tokens: list[npt.NDArray[np.int32]], encoder: TextEncoder, pooled: bool, device: torch.device
) -> list[npt.NDArray[np.float32]]:
    lengths = [len(ids) for ids in tokens]
    padded = np.zeros((len(tokens), max(lengths)), dtype=np.int64)
    mask = np.zeros(padded.shape, dtype=np.bool_)
    for row, ids in enumerate(tokens):
        padded[row, : len(ids)], mask[row, : len(ids)] = ids, True
    states = encoder(torch.from_numpy(padded).to(device), torch.from_numpy(mask).to(device)).cpu().numpy()
    vectors = [states[row, :length] for row, length in enumerate(lengths)]
    return [v.mean(axis=0, keepdims=True) for v in vectors] if pooled else [v.copy() for v in vectors]


def _encode(
    tokens: Iterable[npt.NDArray[np.int32]], encoder: TextEncoder, batch_size: int, pooled: bool, device: torch.device
) -> Iterator[npt.NDArray[np.float32]]:
    remaining = iter(tokens)
    while window := list(islice(remaining, batch_size * _WINDOW)):
        order = sorted(range(len(window)), key=lambda i: len(window[i]))
        vectors: dict[int, npt.NDArray[np.float32]] = {}
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            vectors.update(zip(rows, _encode_batch([window[i] for i in rows], encoder, pooled, device), strict=True))
        yield from (vectors.pop(i) for i in range(len(window)))
