"""Features of single clips on the disk to one dataset; one clip is read at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from equipoise.data import DataError, Dataset, write_dataset
from equipoise.data.importers._common import Rows
from equipoise.experiments.store import Store
from equipoise.extraction.clip_features import columns_of
from equipoise.extraction.labels import ClipLabels
from equipoise.extraction.recipe import Recipe
from equipoise.extraction.report import ClipReport, why_not_used
from equipoise.extraction.times import SUFFIX, WORDS, times_array, words_array
from equipoise.extraction.work import read_stream
from equipoise.features.transcript import Word


def write_extracted(
    labels: ClipLabels,
    rows: Sequence[ClipReport],
    ids: Sequence[str],
    store: Store,
    out: Path,
    recipe: Recipe,
    models: Sequence[str],
    *,
    name: str,
    overwrite: bool,
) -> tuple[Dataset, tuple[str, ...]]:
    """Write a dataset of the clips that can be used, and say what a reader should know of it.

    Args:
        labels: of all rows.
        rows: what became of them.
        ids: of the work on each.
        store: where the features are.
        out: the dataset's directory.
        recipe: by which they were made; kept in the manifest as ``extraction``.
        models: where the recipe's models lie; not kept.
        name: of the dataset in tables.
        overwrite: replace a dataset that is there.

    Raises:
        DataError: no clip can be used, or none of the split train.
        OSError: the disk is full or fails.
    """
    used = [i for i, row in enumerate(rows) if row.status == "used"]
    if not used:
        raise DataError(f"{labels.source}: no clip can be used. {' '.join(why_not_used(rows)[:3])}")
    if not any(rows[i].split == "train" for i in used):
        raise DataError(f"{labels.source}: no clip of the split train can be used. {' '.join(why_not_used(rows)[:3])}")
    results = [_result(rows[i]) for i in used]
    columns, notes = columns_of(recipe, models), []
    modalities, arrays, rates = {}, {}, {}
    for modality in columns:
        about = [result["streams"][modality] for result in results]
        found = [each["frames"] > 0 for each in about]
        if not any(found):
            reasons = sorted({each["absent"] for each in about})
            notes.append(f"{modality} is left out: no clip has any ({'; '.join(reasons[:3])})")
            continue
        if not all(found):
            notes.append(f"{modality} is missing in {len(found) - sum(found)} of {len(found)} clips")
        where = (store, [ids[i] for i in used], modality, about)
        modalities[modality] = Rows(len(used), partial(_values, *where))
        arrays[f"{modality}{SUFFIX}"] = times_array(partial(_times, *where), [each["rate"] for each in about])
        rates[modality] = sorted({each["rate"] for each in about if each["frames"]})
    texts = _texts(rows, used) if recipe.text else None
    if texts is None and recipe.text:
        notes.append("no clip has a transcript")
    elif texts is not None and not all(texts):
        notes.append(f"{sum(not text for text in texts)} of {len(texts)} clips have no transcript")
    spoken = words_array([_words(result) for result in results])
    if spoken is not None:
        arrays[WORDS] = spoken
    dataset = write_dataset(
        out,
        name=name,
        source=f"clips of {labels.source}",
        task=labels.task,
        modalities=modalities,
        labels=labels.labels[used],
        ids=[rows[i].clip.id for i in used],
        splits=[rows[i].split for i in used],
        label_range=labels.label_range,
        classes=labels.classes,
        scale=labels.scale,
        texts=texts,
        groups=_chosen(labels.groups, used),
        speakers=_chosen(labels.speakers, used),
        unimodal_labels={key: values[used] for key, values in labels.unimodal.items()} or None,
        extractor={modality: extractor_name(getattr(recipe, modality)) for modality in modalities},
        extra={
            "extraction": recipe.to_json(),
            "columns": {modality: list(columns[modality]) for modality in modalities},
            "rates": rates,
            "clips": {"listed": len(rows), "used": len(used)},
            "assumptions": list(labels.assumptions),
        },
        arrays=arrays,
        overwrite=overwrite,
    )
    return dataset, tuple(notes)


def extractor_name(settings: Mapping[str, Any]) -> str:
    """An extractor and its arguments in a few words.

    >>> extractor_name({"name": "log-mel", "arguments": {"bins": 40}, "torch": "2.6"})
    'log-mel (bins 40)'
    """
    arguments = ", ".join(f"{key} {value}" for key, value in settings.get("arguments", {}).items())
    return f"{settings['name']} ({arguments})" if arguments else str(settings["name"])


def _values(
    store: Store, ids: Sequence[str], modality: str, about: Sequence[Mapping[str, Any]]
) -> Iterator[npt.NDArray[np.float32]]:
    for id, each in zip(ids, about, strict=True):
        yield read_stream(store, id, modality, each).values


def _times(
    store: Store, ids: Sequence[str], modality: str, about: Sequence[Mapping[str, Any]]
) -> Iterator[npt.NDArray[np.float64]]:
    for id, each in zip(ids, about, strict=True):
        yield read_stream(store, id, modality, each).times


def _result(row: ClipReport) -> Mapping[str, Any]:
    assert row.result is not None  # it was used
    return row.result


def _texts(rows: Sequence[ClipReport], used: Sequence[int]) -> list[str] | None:
    texts = [rows[i].clip.text or (_result(rows[i])["transcript"] or {}).get("text", "") for i in used]
    return texts if any(texts) else None


def _words(result: Mapping[str, Any]) -> list[Word] | None:
    said = result["transcript"]
    return [Word(**word) for word in said["words"]] if said and said["words"] else None


def _chosen(values: Sequence[str] | None, used: Sequence[int]) -> list[str] | None:
    return None if values is None else [values[i] for i in used]
