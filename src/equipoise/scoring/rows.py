"""Scores as rows of one table, whatever the clips had and lacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from equipoise.report.tables import Cell, Table, cell_text
from equipoise.scoring.result import ClipScore
from equipoise.scoring.score import output_names
from equipoise.training.model_info import ModelInfo

Value: TypeAlias = "str | float | None"
_NAMED = 12  # classes: beyond, the table shows the likeliest alone


def flat_columns(info: ModelInfo) -> dict[str, type[str] | type[float]]:
    """Names and types of the columns of `flat_rows`, the same for all clips of a model."""
    names = output_names(info)
    columns: dict[str, type[str] | type[float]] = {"clip": str, "start": float, "end": float}
    if info.labels.kind == "classification":
        columns |= {"label": str, **{f"p_{name}": float for name in names}, "likely": str}
        columns |= {f"contribution_{modality}": float for modality in info.modalities} | {"baseline": float}
    else:
        for name in names:
            columns |= {name: float, f"{name}_low": float, f"{name}_high": float}
            behind = "" if len(names) == 1 else f"_{name}"
            columns |= {f"contribution_{modality}{behind}": float for modality in info.modalities}
            columns |= {f"baseline{behind}": float}
    return columns | {"level": float} | dict.fromkeys(("used", "missing", "transcript", "notes", "error"), str)


def flat_rows(scores: Sequence[ClipScore], info: ModelInfo) -> list[dict[str, Value]]:
    """One row a score; None where there is nothing to say.

    The contributions to a class are those to the most probable one. Weights of words are not in it.
    """
    return [{**dict.fromkeys(flat_columns(info)), **_row(score, info)} for score in scores]


def score_table(scores: Sequence[ClipScore], info: ModelInfo, title: str) -> Table:
    """What a person reads first: the score, how sure it is, and what each modality added."""
    names, classes = output_names(info), info.labels.kind == "classification"
    timeline = any(score.start for score in scores)
    shown = ("label", *(f"p {name}" for name in names[: _NAMED if len(names) <= _NAMED else 0]), "likely")
    heads = shown if classes else tuple(head for name in names for head in (name, "interval"))
    columns = ("clip", *(("from", "to") if timeline else ()), *heads, *(f"+ {each}" for each in info.modalities))
    rows: list[tuple[Cell, ...]] = []
    for score in scores:
        cells: list[Cell] = [score.id, *([score.start, score.end] if timeline else [])]
        if score.error:
            cells += [None] * (len(columns) - len(cells))
        elif classes:
            chances = [score.values[name] for name in names] if len(names) <= _NAMED else []
            cells += [score.label, *chances, None if score.likely is None else ", ".join(score.likely)]
        else:
            for name in names:
                cells += [score.values[name], _interval(score, name)]
        if not score.error:
            of = score.label if score.label is not None else names[0]
            cells += [score.contributions[m][of] if m in score.contributions else None for m in info.modalities]
        rows.append(tuple(cells))
    return Table(title, columns, tuple(rows), tuple(_notes(scores, info)))


def _notes(scores: Sequence[ClipScore], info: ModelInfo) -> list[str]:
    names = output_names(info)
    levels = sorted({score.level for score in scores if score.level is not None})
    notes = [f"Intervals hold the truth for {100 * level:g} % of clips like those of validation." for level in levels]
    if info.labels.kind == "classification":
        notes.append("+: what each modality adds to the probability of the class named, above that with all muted.")
    elif len(names) == 1:
        muted = sorted({cell_text(score.baseline[names[0]]) for score in scores if score.baseline})
        above = f" ({muted[0]})" if len(muted) == 1 else ""
        notes.append(f"+: what each modality adds to the score, above that with all muted{above}.")
    else:
        notes.append(f"+: what each modality adds to {names[0]}; `--json` and `--to` have the others.")
    for score in scores:
        where = f"{score.id} from {score.start:g} s" if score.start else score.id
        if score.error:
            notes.append(f"{where}: no score: {score.error}")
        notes += [f"{where}: without {name}: {why}" for name, why in score.missing.items() if why != "left out"]
        notes += [f"{where}: {note}" for note in score.notes]
    return list(dict.fromkeys(notes))


def _interval(score: ClipScore, name: str) -> str | None:
    return None if score.interval is None else " to ".join(cell_text(bound) for bound in score.interval[name])


def _row(score: ClipScore, info: ModelInfo) -> dict[str, Value]:
    row: dict[str, Value] = {"clip": score.id, "start": score.start, "end": score.end, "error": score.error or None}
    row["missing"] = "; ".join(f"{name}: {why}" for name, why in score.missing.items()) or None
    row["notes"] = "; ".join(score.notes) or None
    row["transcript"] = None if score.transcript is None else score.transcript.text
    if score.error:
        return row
    row |= {"level": score.level, "used": "+".join(score.used)}
    names = output_names(info)
    if score.label is not None:
        row |= {"label": score.label, **{f"p_{name}": value for name, value in score.values.items()}}
        row |= {"likely": None if score.likely is None else "; ".join(score.likely)}
        row |= {f"contribution_{m}": share[score.label] for m, share in score.contributions.items()}
        return row | {"baseline": score.baseline[score.label]}
    for name in names:
        behind = "" if len(names) == 1 else f"_{name}"
        low, high = (None, None) if score.interval is None else score.interval[name]
        row |= {name: score.values[name], f"{name}_low": low, f"{name}_high": high}
        row |= {f"contribution_{m}{behind}": share[name] for m, share in score.contributions.items()}
        row |= {f"baseline{behind}": score.baseline[name]}
    return row
