"""What a dataset holds, as a table or JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from equipoise.cli.console import print_json, print_table
from equipoise.report.tables import Table

if TYPE_CHECKING:
    from equipoise.data import Dataset
    from equipoise.data.leakage import Leakage


def show_dataset(dataset: Dataset, as_json: bool, notes: Sequence[str], facts: dict[str, Any]) -> int:
    """Print a dataset's modalities, labels, splits and leaks, with notes; as JSON with further facts. Returns 0."""
    from equipoise.data.leakage import check_leakage

    with busy("looking for leakage"):
        leakage = check_leakage(dataset)
    if as_json:
        print_json({**dataset.describe(), **facts, "leakage": leakage.to_json()})
        return 0
    manifest = dataset.manifest
    rows = tuple(
        (name, info.dim, info.dtype, info.shortest, info.mean, info.longest, info.missing, info.repaired)
        for name, info in manifest.modalities.items()
    )
    columns = ("modality", "width", "type", "shortest", "mean", "longest", "missing", "repaired")
    labels = manifest.labels
    what = ("target", "targets") if labels.kind == "regression" else ("class", "classes")
    facts_of = [f"{labels.kind}, {labels.outputs} {what[labels.outputs != 1]}"]
    if labels.range:
        facts_of.append(f"range [{labels.range[0]:g}, {labels.range[1]:g}]")
    if labels.classes:
        facts_of.append(", ".join(labels.classes[:12]) + (", ..." if len(labels.classes) > 12 else ""))
    if manifest.unimodal:
        facts_of.append(f"own labels of {', '.join(manifest.unimodal)}")
    lines = [
        f"samples: {manifest.samples} ({', '.join(f'{name} {count}' for name, count in manifest.splits.items())})",
        f"labels: {'; '.join(facts_of)}",
        f"transcripts: {'yes' if dataset.texts else 'no'}; "
        f"source videos: {len(set(dataset.groups)) if dataset.groups else 'unknown'}; "
        f"speakers: {len(set(dataset.speakers)) if dataset.speakers else 'unknown'}",
    ]
    repaired = sum(info.repaired for info in manifest.modalities.values())
    if repaired:
        lines.append(f"repaired: {repaired} values that were infinite or not a number are 0 now")
    if manifest.synthetic:
        lines.append("synthetic data")
    title = f"{manifest.name}, from {manifest.source}, in {dataset.path}"
    print_table(Table(title, columns, rows, (*lines, *notes, *leakage_lines(leakage))))
    return 0


@contextmanager
def busy(what: str) -> Iterator[None]:
    """A spinner on a terminal's standard error, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(what)):
        yield


def leakage_lines(leakage: Leakage) -> list[str]:
    """What a check for leakage found, and what it could not look at."""
    unknown = [
        what
        for what, found in (("speakers", leakage.speakers), ("source videos", leakage.groups), ("text", leakage.texts))
        if found is None
    ]
    lines = [f"leakage: {message}" for message in leakage.messages] or ["leakage: none found"]
    if leakage.samples:
        lines.append(f"leakage: {leakage.samples} validation and test samples are affected")
    return [*lines, f"leakage: not checked for lack of data: {', '.join(unknown)}"] if unknown else lines
