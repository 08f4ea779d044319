"""MUStARD as released: a folder with ``sarcasm_data.json`` and, if wanted, feature files.

``sarcasm_data.json``: id → ``utterance``, ``speaker``, ``context`` (list), ``context_speakers``, ``show``, ``sarcasm``.
Features, each optional: ``audio_features.p`` (id → ``[283, T]``), ``resnet_pool5.hdf5`` (id → ``[T, 2048]``; below
``features/utterances_final``, with the context's below ``features/context_final``). ``split_indices.p``: five
``(train, test)`` pairs of row numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.importers._common import Array, ImportedData, Rows, need, numeric, strings
from equipoise.data.importers._context import checked_context, join_frames, join_text
from equipoise.data.importers._files import load_json
from equipoise.data.splits import assign
from equipoise.data.unpickle import load_pickle

VISION = "resnet_pool5.hdf5"
VALID_FRACTION = 0.1


def recognise(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / "sarcasm_data.json").is_file()


def read(path: Path, *, context: str = "prepend", fold: str = "0", seed: int = 0) -> ImportedData:
    """Read a MUStARD folder.

    Args:
        path: the folder.
        context: ``"prepend"`` puts the context's sentences (and video frames, where there are any) before the
            utterance's; ``"drop"`` leaves them out. The released audio has no context.
        fold: ``"0"`` to ``"4"``: the test rows of that fold of ``split_indices.p``; ``"speaker"``: *Friends* is the
            test set, as in the paper's speaker-independent setting. Neither has validation rows: a label-balanced
            tenth of the other rows becomes the validation split.
        seed: draws that tenth.

    """
    checked_context(context)
    file = path / "sarcasm_data.json"
    entries = load_json(file)
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"{file} should be a non-empty dict from id to utterance.")
    ids = list(entries)
    texts, speakers, shows, labels = [], [], [], []
    for i, entry in entries.items():
        where = f"{file}: {i}"
        before = strings(need(entry, "context", where), f"{where}: context")
        texts.append(join_text(context, before, str(need(entry, "utterance", where))))
        speakers.append(str(need(entry, "speaker", where)))
        shows.append(str(entry.get("show", "")))
        label = need(entry, "sarcasm", where)
        if label not in (True, False):
            raise DataError(f"{where}: `sarcasm` should be true or false. Found {label!r}.")
        labels.append(int(label))

    test = _test_rows(path, fold, shows)
    splits = np.full(len(ids), "test", dtype=object)
    rest = np.setdiff1d(np.arange(len(ids)), test)
    if not len(rest):
        raise DataError(f"{path}: fold {fold} leaves no training rows.")
    splits[rest] = assign(np.array(labels)[rest], (1 - VALID_FRACTION, VALID_FRACTION, 0.0), seed=seed)
    modalities: dict[str, Iterable[Array]] = {}
    if (path / "audio_features.p").is_file():
        modalities["audio"] = _audio(path / "audio_features.p", ids)
    vision = next((f for f in (path / "features" / "utterances_final" / VISION, path / VISION) if f.is_file()), None)
    if vision:
        modalities["vision"] = _vision(vision, path / "features" / "context_final" / VISION, ids, context)
    return ImportedData(
        name="mustard",
        source=path.name,
        task="classification",
        modalities=modalities,
        labels=np.array(labels, dtype=np.int64),
        ids=ids,
        splits=[str(s) for s in splits],
        classes=("not sarcastic", "sarcastic"),
        texts=texts,
        speakers=speakers,
        extra={"context": context, "fold": fold},
        assumptions=(f"validation is a label-balanced {VALID_FRACTION:.0%} of the rows outside the test fold",),
    )


def _test_rows(path: Path, fold: str, shows: Sequence[str]) -> Array:
    if fold == "speaker":
        rows = np.flatnonzero(np.array(shows) == "FRIENDS")
        if not len(rows):
            raise DataError(f"{path / 'sarcasm_data.json'}: no utterance of the show FRIENDS for `fold = speaker`.")
        return rows
    if fold not in ("0", "1", "2", "3", "4"):
        raise DataError(f"Parameter `fold` should be 0 to 4 or speaker. Found `fold = {fold!r}`.")
    file = path / "split_indices.p"
    if not file.is_file():
        raise DataError(f"{path} has no split_indices.p. Add it, or ask for `fold = speaker`.")
    folds = load_pickle(file)
    try:
        rows = numeric(folds[int(fold)][1], f"{file}: fold {fold}").astype(np.int64)
    except (IndexError, KeyError, TypeError):
        raise DataError(f"{file} should be five (train, test) pairs. Fold {fold} is not there.") from None
    if not len(rows) or rows.min() < 0 or rows.max() >= len(shows):
        raise DataError(f"{file}: fold {fold} names rows outside the {len(shows)} utterances.")
    return rows


def _audio(file: Path, ids: Sequence[str]) -> list[Array]:
    content: Any = load_pickle(file)
    rows = []
    for i in ids:
        features = numeric(need(content, i, str(file)), f"{file}: {i}")
        if features.ndim != 2:
            raise DataError(f"{file}: {i} should be [d, T]. Found shape {features.shape}.")
        rows.append(features.T)
    return rows


def _vision(file: Path, before: Path, ids: Sequence[str], context: str) -> Rows:
    import h5py

    with_context = context == "prepend" and before.is_file()
    with h5py.File(file) as h5:
        missing = [i for i in ids if i not in h5]
    if missing:
        raise DataError(f"{file} has no key `{missing[0]}`.")

    def each() -> Iterator[Array]:
        with h5py.File(file) as h5, h5py.File(before if with_context else file) as earlier:
            for i in ids:
                previous = earlier[i][()] if with_context and i in earlier else None
                yield join_frames(context, previous, h5[i][()], f"{file}: {i}")

    return Rows(len(ids), each)
