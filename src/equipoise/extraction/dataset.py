"""Clips and their labels to a dataset: side by side, resumable, with a report of what could not be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from equipoise.data import DataError, Dataset
from equipoise.data.labels import check_labels, describe_labels
from equipoise.data.splits import By, split_rows
from equipoise.experiments.pool import Told, run_cells
from equipoise.experiments.store import Store
from equipoise.extraction.assemble import write_extracted
from equipoise.extraction.clip_features import check_recipe
from equipoise.extraction.contents import Contents
from equipoise.extraction.labels import ClipLabels, LabelledClip
from equipoise.extraction.recipe import Recipe
from equipoise.extraction.report import FILENAME, ClipReport, write_report
from equipoise.extraction.work import ClipWork, do_work, make_work
from equipoise.features.local_models import model_places

ATTEMPTS = 2  # a decoder that crashes on a clip does so again
LIMIT_SECONDS = 3600.0

Watch: TypeAlias = "Callable[[Sequence[ClipWork], int], AbstractContextManager[Told[ClipWork]]]"
"""Called with the work to do and the number of clips that are done already; gives what hears of progress."""


@dataclass(frozen=True, eq=False)
class Extraction:
    """What came out.

    Attributes:
        dataset: of the clips that could be used.
        rows: what became of each row of the label file.
        report: where that is written.
        notes: what a reader should know of the dataset.
    """

    dataset: Dataset
    rows: tuple[ClipReport, ...]
    report: Path
    notes: tuple[str, ...]


def extract_dataset(
    labels: ClipLabels,
    out: str | PathLike[str],
    recipe: Recipe,
    *,
    models: Sequence[str | Path] = (),
    cache: str | PathLike[str] | None = None,
    name: str | None = None,
    sidecar: bool = True,
    split_by: By | None = None,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    jobs: int = 1,
    limit_seconds: float | None = LIMIT_SECONDS,
    engine: str = "local",
    address: str | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Extraction:
    """Extract every clip of a label file and write a canonical dataset.

    Clips are extracted in processes that may crash or be killed: the other clips go on, and the same call goes on where
    it was stopped. What was extracted is kept in ``cache`` under a digest of the file's content, the recipe and the
    code, so that changed labels, other splits or one clip more cost no second extraction. A clip that fails is left out
    of the dataset and listed in ``report.csv`` in that folder.

    Args:
        labels: the rows; see `equipoise.extraction.labels.read_labels`.
        out: the dataset's directory; it appears when it is whole.
        recipe: how clips become features; it is kept in the manifest.
        models: files and folders of the models that the recipe asks for, see `equipoise.features.local_models`.
        cache: where features of single clips are kept; ``OUT.clips`` by default.
        name: in tables; that of ``out`` by default.
        sidecar: look for a transcript beside a clip that the labels give none.
        split_by: what no two splits may share where the labels have no splits; speakers where they are known, else
            groups, else nothing.
        fractions: shares of train, valid and test where the labels have no splits.
        seed: of the splits.
        jobs: processes at once.
        limit_seconds: a clip that takes longer fails; None for no limit.
        engine: ``local``, or ``ray`` for the machines of a Ray cluster, which have to see the same paths.
        address: of the cluster; None starts one on this machine.
        retry_failed: try clips again that have failed before.
        overwrite: replace a dataset that is there.
        watch: shows progress.

    Raises:
        DataError: labels that break a rule (before anything is extracted), or no clip that can be used.
        ValueError: a recipe that can't be followed here, or what `run_cells` refuses.
        FileNotFoundError: a model that the recipe asks for is not here.
        ModuleNotFoundError: an extra that is not installed.
        OSError: a disk that is full or fails.
    """
    out = Path(out)
    splits = _check(labels, out, split_by, fractions, seed, overwrite=overwrite)
    places = model_places(models)
    check_recipe(recipe if not all(clip.text for clip in labels.clips) else replace(recipe, speech=None), places)
    store = Store(out.with_name(f"{out.name}.clips") if cache is None else Path(cache))
    contents = Contents(store.root)
    planned = [_plan(clip, recipe, contents, sidecar=sidecar) for clip in labels.clips]
    contents.save()
    works = {work.id: work for work in planned if isinstance(work, ClipWork)}
    if not works:
        raise DataError(f"{labels.source}: none of its {len(planned)} files can be read, such as {planned[0]}")
    for id in works:
        if store.failed(id) and (retry_failed or _disk_failed(store, id)):
            store.forget(id)
    known = store.ids("done") | store.ids("failed")
    waiting = [work for work in works.values() if work.id not in known]
    with nullcontext() if watch is None else watch(waiting, len(works) - len(waiting)) as told:
        run_cells(
            waiting,
            partial(do_work, store, models=places),
            store,
            jobs=jobs,
            attempts=ATTEMPTS,
            limit_seconds=limit_seconds,
            told=told,
            engine=engine,
            address=address,
        )
    rows = tuple(_reports(labels.clips, planned, splits, recipe, store))
    report = store.root / FILENAME
    write_report(report, rows, [key for key in ("audio", "vision") if getattr(recipe, key) is not None])
    ids = [work.id if isinstance(work, ClipWork) else "" for work in planned]
    dataset, notes = write_extracted(
        labels, rows, ids, store, out, recipe, places, name=name or out.resolve().name, overwrite=overwrite
    )
    return Extraction(dataset, rows, report, notes)


def _check(
    labels: ClipLabels, out: Path, split_by: By | None, fractions: Sequence[float], seed: int, *, overwrite: bool
) -> list[str]:
    """The splits; whatever would be refused in the end is refused now, before hours of work."""
    if out.exists() and not overwrite:
        raise DataError(f"{out} exists. Give another path, or overwrite it (`--overwrite`).")
    about = describe_labels(
        labels.labels,
        labels.task,
        label_range=labels.label_range,
        classes=labels.classes,
        scale=labels.scale,
        targets=None,
    )
    try:
        check_labels(labels.labels, about, len(labels.clips))
        for name, values in labels.unimodal.items():
            check_labels(values, about, len(labels.clips), f"label_{name}")
        if labels.splits is not None:
            if "train" not in labels.splits:
                raise DataError("no row is in the split train.")
            return labels.splits
        by: By = split_by or ("speaker" if labels.speakers else "group" if labels.groups else "none")
        return split_rows(labels.labels, fractions, speakers=labels.speakers, groups=labels.groups, by=by, seed=seed)
    except DataError as error:
        raise DataError(f"{labels.source}: {error}") from None


def _plan(clip: LabelledClip, recipe: Recipe, contents: Contents, *, sidecar: bool) -> ClipWork | str:
    """The work on a clip, or why there is none."""
    try:
        return make_work(clip, recipe, contents, sidecar=sidecar)
    except FileNotFoundError:
        return f"{clip.path}: no such file."
    except OSError as error:
        return f"{clip.path}: {(error.strerror or str(error)).lower()}."


def _disk_failed(store: Store, id: str) -> bool:
    # A full disk is no property of the clip.
    return "OSError: [Errno" in str(store.read(id).get("traceback", ""))


def _reports(
    clips: Sequence[LabelledClip],
    planned: Sequence[ClipWork | str],
    splits: Sequence[str],
    recipe: Recipe,
    store: Store,
) -> Iterator[ClipReport]:
    for clip, work, split in zip(clips, planned, splits, strict=True):
        if isinstance(work, str):
            yield ClipReport(clip, "failed", work, split)
            continue
        record = store.read(work.id)
        if "result" not in record:
            yield ClipReport(clip, "failed", str(record.get("error", "")), split)
            continue
        result: dict[str, Any] = record["result"]
        absent = {name: each["absent"] for name, each in result["streams"].items() if each["absent"]}
        texts = recipe.text and (clip.text or result["transcript"])
        if len(absent) == len(result["streams"]) and not texts:
            why = "; ".join([*(f"{name}: {reason}" for name, reason in absent.items()), "no transcript"])
            yield ClipReport(clip, "left out", why, split, result)
        else:
            yield ClipReport(clip, "used", "", split, result)
