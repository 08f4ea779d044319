"""`report.csv`: every clip of a label file, with what was used of it, what is absent, and why it failed."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from equipoise.extraction.labels import LabelledClip
from equipoise.training.files import replace_file

FILENAME = "report.csv"
Status = Literal["used", "left out", "failed"]


@dataclass(frozen=True, slots=True)
class ClipReport:
    """What became of one row of a label file.

    Attributes:
        clip: the row.
        status: ``used``; ``left out``, nothing in it could be used; ``failed``.
        reason: of the last two.
        split: train, valid or test.
        result: what the work on it returned, if it ended well.
    """

    clip: LabelledClip
    status: Status
    reason: str = ""
    split: str = ""
    result: Mapping[str, Any] | None = None


def write_report(path: Path, rows: Sequence[ClipReport], modalities: Sequence[str]) -> None:
    """Write one line a row of the label file.

    For each modality: its frames, or why there is none. ``text``: where the words come from (``labels``, ``sidecar``,
    a recogniser), and where their times.

    Raises:
        OSError: it can't be written.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    per_modality = [f"{name}_{what}" for name in modalities for what in ("frames", "absent")]
    writer.writerow(
        ["id", "file", "start", "end", "split", "status", "reason", "seconds", *per_modality, "text", "word_times"]
        + ["notes", "cpu_seconds"]
    )
    for row in rows:
        clip, result = row.clip, row.result or {}
        streams = result.get("streams", {})
        said = result.get("transcript") or {}
        notes = [*result.get("notes", ()), *(f"{name}: {each}" for name in streams for each in streams[name]["notes"])]
        writer.writerow(
            [clip.id, clip.file, f"{clip.start:g}", "" if clip.end is None else f"{clip.end:g}", row.split]
            + [row.status, row.reason, _number(result.get("duration"))]
            + [streams.get(name, {}).get(key, "") for name in modalities for key in ("frames", "absent")]
            + ["labels" if clip.text else said.get("origin", ""), said.get("timing", ""), "; ".join(notes)]
            + [_number(result.get("cpu_seconds"))]
        )
    replace_file(path, out.getvalue().encode())


def why_not_used(rows: Sequence[ClipReport]) -> list[str]:
    """One line for each reason, the most frequent first, with an example."""
    unused = [row for row in rows if row.status != "used"]
    reasons = Counter((row.status, row.reason.replace(str(row.clip.path), "the file")) for row in unused)
    lines = []
    for (status, reason), count in reasons.most_common():
        example = next(row for row in unused if row.reason.replace(str(row.clip.path), "the file") == reason)
        lines.append(f"{count} {status}, such as {example.clip.file}: {reason}")
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
