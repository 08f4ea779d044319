"""One clip of a dataset as work that any process can do, and what it leaves on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from equipoise.experiments.store import Store
from equipoise.extraction.clip_features import extract_clip
from equipoise.extraction.contents import Contents, code_digest
from equipoise.extraction.labels import LabelledClip
from equipoise.extraction.recipe import Recipe
from equipoise.features.sidecar import find_sidecar
from equipoise.features.stream import FeatureStream
from equipoise.training.files import named, sync_folder


@dataclass(frozen=True, slots=True)
class ClipWork:
    """What is done with one clip.

    Attributes:
        id: a digest of the file's content and of all below but the path: equal work has one id, wherever the file is.
        path: the file.
        start, end: the segment; None for the file's end.
        text: what is said, where the features depend on it; None to leave it out or look for it.
        sidecar: look for a transcript beside the clip.
        recipe: as JSON.
    """

    id: str
    path: str
    start: float
    end: float | None
    text: str | None
    sidecar: bool
    recipe: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """What stands beside the result."""
        return asdict(self)


def make_work(clip: LabelledClip, recipe: Recipe, contents: Contents, *, sidecar: bool) -> ClipWork:
    """The work on one row of a label file.

    A transcript from the labels joins the features later, so that another text makes no other work, unless features
    are averaged over its words.

    Args:
        clip: the row.
        recipe: of the dataset.
        contents: knows the digests of files.
        sidecar: look for a transcript beside a clip that the labels give none.

    Raises:
        OSError: the file can't be read.
    """
    text = clip.text if clip.text and recipe.text and recipe.align == "words" else None
    looks = sidecar and recipe.text and not clip.text
    if clip.text and text is None:
        recipe = replace(recipe, text=False, speech=None)
    beside = find_sidecar(clip.path) if looks else None
    decides = {
        "clip": contents.digest(clip.path),
        "beside": None if beside is None else [beside.suffix, contents.digest(beside)],
        "segment": [clip.start, clip.end],
        "text": text,
        "recipe": recipe.to_json(),
        "code": code_digest(),
    }
    id = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:24]
    return ClipWork(id, str(clip.path), clip.start, clip.end, text, looks, recipe.to_json())


def do_work(store: Store, work: ClipWork, *, models: Sequence[str] = ()) -> dict[str, Any]:
    """Extract a clip; its features go to files in the store's folder for it, the rest is returned as JSON.

    Args:
        store: where features go.
        work: on the clip.
        models: where models lie in this run, which is no part of the work.

    Raises:
        MediaError: the clip can't be used.
        OSError: the disk is full.
    """
    import torch

    torch.set_num_threads(1)  # the processes share the cores
    started = time.process_time()
    clip = extract_clip(
        work.path,
        Recipe(**work.recipe),
        start=work.start,
        end=work.end,
        text=work.text,
        sidecar=work.sidecar,
        models=models,
    )
    folder = store.run_dir(work.id)
    folder.mkdir(exist_ok=True)
    for name, stream in clip.streams.items():
        _save(folder / f"{name}.npy", stream.values)
        _save(folder / f"{name}.times.npy", stream.times)
    sync_folder(folder)
    return {
        "streams": {
            name: {"frames": len(stream.values), "rate": stream.rate, "absent": stream.absent, "notes": stream.notes}
            for name, stream in clip.streams.items()
        },
        "transcript": None if clip.transcript is None else asdict(clip.transcript),
        "duration": clip.duration,
        "facts": clip.facts,
        "notes": clip.notes,
        "cpu_seconds": time.process_time() - started,
    }


def read_stream(store: Store, id: str, name: str, about: Mapping[str, Any]) -> FeatureStream:
    """One stream that `do_work` left.

    Args:
        store: where it was done.
        id: of the work.
        name: of the modality.
        about: what the result says of the stream.

    Raises:
        FileNotFoundError: the features are gone, or lie on the disk of another machine.
    """
    folder = store.run_dir(id)
    try:
        values = np.load(folder / f"{name}.npy", allow_pickle=False)
        times = np.load(folder / f"{name}.times.npy", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} should hold the features of a finished clip. It doesn't: delete {store.root} and run the same "
            "command again; several machines need it on a disk that they share."
        ) from None
    return FeatureStream(values, times, float(about["rate"]), about["absent"], tuple(about["notes"]))


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    with named(path), path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
