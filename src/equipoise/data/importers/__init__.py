"""Importers: the field's file formats in, one canonical dataset out. One format a module; names in `FORMATS`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from equipoise.data.checksums import identify
from equipoise.data.dataset import Dataset
from equipoise.data.errors import DataError
from equipoise.data.importers import cherma, csd, csv, hkt, mag, mmsa, mustard, npz, urfunny
from equipoise.data.importers._common import ImportedData
from equipoise.data.unpickle import load_pickle
from equipoise.data.writer import write_dataset

__all__ = ["FORMATS", "ImportedData", "detect", "import_dataset", "read", "write"]

FORMATS: dict[str, Callable[..., ImportedData]] = {
    "mmsa": mmsa.read,
    "mag": mag.read,
    "hkt": hkt.read,
    "ur-funny": urfunny.read,
    "mustard": mustard.read,
    "cherma": cherma.read,
    "csd": csd.read,
    "npz": npz.read,
    "csv": csv.read,
}
FOLDERS: dict[str, Callable[[Path], bool]] = {
    "ur-funny": urfunny.recognise,
    "mustard": mustard.recognise,
    "cherma": cherma.recognise,
    "csd": csd.recognise,
}
PICKLES: dict[str, Callable[[Any], bool]] = {"mmsa": mmsa.recognise, "mag": mag.recognise, "hkt": hkt.recognise}


def detect(path: str | PathLike[str]) -> str:
    """The format of a file or folder, by its content.

    Raises:
        DataError: none fits, or more than one.
        FileNotFoundError: there is no such file.

    """
    return _detect(Path(path))[0]


def read(path: str | PathLike[str], format: str = "auto", **options: Any) -> ImportedData:
    """Read a source into memory-light rows; nothing is written.

    Args:
        path: file or folder.
        format: a name of `FORMATS`, or ``"auto"``.
        options: what that format's ``read`` takes; one that is None counts as not given.

    Raises:
        DataError: the source breaks the format's layout, or an option does not apply to it.
        FileNotFoundError: there is no such file.

    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"No such file or folder: {source}.")
    if format != "auto" and format not in FORMATS:
        known = ", ".join(FORMATS)
        raise DataError(f"Parameter `format` should be auto or one of {known}. Found `format = {format!r}`.")
    content = None
    if format == "auto":
        format, content = _detect(source)
    given = {key: value for key, value in options.items() if value is not None}
    accepted = set(inspect.signature(FORMATS[format]).parameters) - {"path", "content"}
    for key in given:
        if key not in accepted:
            takes = f"It takes: {', '.join(sorted(accepted))}." if accepted else "It takes no options."
            raise DataError(f"Option `{key}` does not apply to format {format}. {takes}")
    if content is not None:
        given["content"] = content
    return FORMATS[format](source, **given)


def write(
    data: ImportedData,
    path: str | PathLike[str],
    *,
    name: str | None = None,
    modalities: Sequence[str] | None = None,
    sha256: str | None = None,
    published: str | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Write what an importer read as a canonical dataset.

    Args:
        data: see `read`.
        path: the new directory.
        name: for tables; by default the source's.
        modalities: the modalities to keep; all by default.
        sha256: of the source file, kept in the manifest.
        published: the published file that it is, kept in the manifest.
        overwrite: replace a dataset that is there.

    Raises:
        DataError: the data break a rule of the canonical layout.

    """
    unknown = [m for m in modalities or () if m not in data.modalities]
    if unknown:
        known = ", ".join(data.modalities) or "none"
        raise DataError(f"{data.source} has no modality {unknown[0]!r}. It has: {known}.")
    kept = data.modalities if modalities is None else {m: data.modalities[m] for m in modalities}
    single = {m: v for m, v in (data.unimodal_labels or {}).items() if m in kept}
    facts = {"assumptions": list(data.assumptions) or None, "sha256": sha256, "published": published}
    try:
        return write_dataset(
            path,
            name=name or data.name,
            source=data.source,
            task=data.task,
            modalities=kept,
            labels=data.labels,
            ids=data.ids,
            splits=data.splits,
            label_range=data.label_range,
            classes=data.classes,
            scale=data.scale,
            texts=data.texts,
            groups=data.groups,
            speakers=data.speakers,
            unimodal_labels=single or None,
            extra={**data.extra, **{key: value for key, value in facts.items() if value is not None}},
            overwrite=overwrite,
        )
    except DataError as error:
        # The canonical layout's own checks know rows and parameters, not the file that they came from.
        says_where = data.source in str(error) or str(path) in str(error)
        raise error if says_where else DataError(f"{data.source}: {error}") from None


def import_dataset(
    source: str | PathLike[str],
    to: str | PathLike[str],
    *,
    format: str = "auto",
    name: str | None = None,
    modalities: Sequence[str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Dataset:
    """Read a source in one of the field's formats and write it as a canonical dataset.

    Args:
        source: file or folder.
        to: the new directory.
        format: a name of `FORMATS`, or ``"auto"``.
        name: for tables; by default the source's.
        modalities: the modalities to keep; all by default.
        overwrite: replace a dataset that is there.
        options: what the format's ``read`` takes, such as ``context="drop"``.

    Raises:
        DataError: the source breaks its layout or a rule of the canonical one; one line that names it.
        FileNotFoundError: there is no such file.

    """
    data = read(source, format, **options)
    checksum = identify(Path(source)) if Path(source).is_file() else None
    return write(
        data,
        to,
        name=name,
        modalities=modalities,
        sha256=checksum.sha256 if checksum else None,
        published=checksum.published if checksum else None,
        overwrite=overwrite,
    )


def _detect(path: Path) -> tuple[str, Any]:
    """The format, and the content where finding out took loading it."""
    if not path.exists():
        raise FileNotFoundError(f"No such file or folder: {path}.")
    if path.is_dir():
        if (path / "manifest.json").is_file():
            raise DataError(f"{path} is a dataset already. See `equipoise data describe {path}`.")
        return _only(path, [name for name, fits in FOLDERS.items() if fits(path)]), None
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise DataError(f"{path} is empty.")
    if start.startswith(b"PK\x03\x04") and path.suffix == ".npz":
        return "npz", None
    if start.startswith(b"\x89HDF"):
        raise DataError(f"{path} is one HDF5 file; give the folder that holds it and the labels' .csd.")
    if path.suffix.lower() in (".csv", ".tsv"):
        return "csv", None
    content = load_pickle(path)
    return _only(path, [name for name, fits in PICKLES.items() if fits(content)]), content


def _only(path: Path, fits: Sequence[str]) -> str:
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise DataError(f"{path} could be {' or '.join(fits)}. Choose one: `--format {fits[0]}`.")
    raise DataError(f"{path} has none of the known layouts. Choose one with `--format`: {', '.join(FORMATS)}.")
