"""CHERMA as its repository (LFMIM) reads it: a folder with one JSON a split and one ``.npy`` a sample and modality.

``{train, dev, test}.json``: list of ``{audio_file, video_file, txt_label, audio_label, visual_label, video_label}``;
``text/<split>/<name>.npy``, ``audio/<split>/<name>.npy``, ``visual/<split>/<name>.mp4.npy``, where ``<name>`` is
``audio_file`` without ``.wav``. Labels are the seven Chinese words of `LABELS`; ``video_label`` is that of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from equipoise.data.errors import DataError
from equipoise.data.importers._common import SPLIT_NAMES, Array, ImportedData, Rows, class_indices, need
from equipoise.data.importers._files import load_array, load_json

LABELS = {
    "愤怒": "anger",
    "厌恶": "disgust",
    "恐惧": "fear",
    "高兴": "happy",
    "平静": "neutral",
    "悲伤": "sad",
    "惊奇": "surprise",
}
UNIMODAL = {"text": "txt_label", "audio": "audio_label", "vision": "visual_label"}
FOLDERS = {"text": ("text", ".npy"), "audio": ("audio", ".npy"), "vision": ("visual", ".mp4.npy")}


def recognise(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / "train.json").is_file() and (folder / "visual").is_dir()


def read(path: Path) -> ImportedData:
    """Read a CHERMA folder; features are read sample by sample."""
    files = [(key, path / f"{key}.json") for key in SPLIT_NAMES if (path / f"{key}.json").is_file()]
    found = [SPLIT_NAMES[key] for key, _ in files]
    if "train" not in found:
        raise DataError(f"{path} has no train.json. A CHERMA folder needs it.")
    if len(set(found)) < len(found):
        raise DataError(f"{path} has two files for one split: {', '.join(f.name for _, f in files)}.")
    ids: list[str] = []
    splits: list[str] = []
    texts: list[str] = []
    stages: list[str] = []
    labels: dict[str, list[str]] = {key: [] for key in ("video_label", *UNIMODAL.values())}
    for key, file in files:
        entries = load_json(file)
        if not isinstance(entries, list) or not entries:
            raise DataError(f"{file}: the split is empty.")
        for i, entry in enumerate(entries):
            where = f"{file}: entry {i}"
            ids.append(str(need(entry, "audio_file", where)).replace(".wav", ""))
            for column, values in labels.items():
                value = str(need(entry, column, where))
                values.append(LABELS.get(value, value))
            if "text" in entry or "txt" in entry:
                texts.append(str(entry.get("text", entry.get("txt"))))
        splits += [SPLIT_NAMES[key]] * len(entries)
        stages += [key] * len(entries)
    classes = list(LABELS.values())
    indices = {key: class_indices(values, classes, f"{path}: {key}")[0] for key, values in labels.items()}

    def rows(modality: str) -> Rows:
        folder, ending = FOLDERS[modality]

        def each() -> Iterator[Array]:
            for i, stage in zip(ids, stages, strict=True):
                yield load_array(path / folder / stage / f"{i}{ending}", f"{path}: {i}: {modality}")

        return Rows(len(ids), each)

    modalities = {modality: rows(modality) for modality in FOLDERS if (path / FOLDERS[modality][0]).is_dir()}
    return ImportedData(
        name="cherma",
        source=path.name,
        task="classification",
        modalities=modalities,
        labels=indices["video_label"],
        ids=ids,
        splits=splits,
        classes=classes,
        texts=texts if len(texts) == len(ids) else None,
        unimodal_labels={modality: indices[key] for modality, key in UNIMODAL.items() if modality in modalities},
        assumptions=("`video_label` is the label of the whole clip, as the repository's loader has it",),
    )
